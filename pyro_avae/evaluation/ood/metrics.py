"""How well a score tells strange images from familiar ones: AUROC, AUPRC, FPR at 95 % TPR, with bootstrap intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_avae.errors import InputError

__all__ = ["METRICS", "auroc_difference", "detection", "roc_curve"]

_Floats = npt.NDArray[np.float64]

#: What :func:`detection` tells.
METRICS = ("auroc", "auprc", "fpr95")

# Weights that one chunk of bootstrap repetitions may hold (32 MiB).
_CHUNK_VALUES = 2**22
_TPR = 0.95


def detection(
    inside: npt.ArrayLike,
    outside: npt.ArrayLike,
    *,
    confidence: float = 0.95,
    repetitions: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures of a score that is larger for strange images, which are the positives.

    Args:
        inside: scores of familiar images ``(N,)``.
        outside: scores of strange images ``(M,)``.
        confidence: coverage of the percentile intervals.
        repetitions: bootstrap draws of N familiar and M strange images.
        seed: seed of the draws.

    Returns:
        For ``auroc``, ``auprc`` (average precision; it depends on M / (N + M), which ``base_rate`` says) and ``fpr95``
        (share of familiar images that are flagged where at least 95 % of the strange ones are): ``value``, ``low``,
        ``high``.

    Raises:
        InputError: no scores on one side, scores that are not finite, a confidence outside (0, 1), no repetition.

    Example:
        >>> found = detection([0.0, 1.0, 2.0], [1.5, 3.0, 4.0], repetitions=100)
        >>> round(found["auroc"]["value"], 4), round(found["fpr95"]["value"], 4)
        (0.8889, 0.3333)
    """
    a, b = _checked(inside, "inside"), _checked(outside, "outside")
    measured = _with_intervals(
        _Order(a, b).measures, (len(a), len(b)), confidence=confidence, repetitions=repetitions, seed=seed
    )
    bootstrap = {"confidence": confidence, "repetitions": repetitions, "seed": seed}
    named = dict(zip(METRICS, measured, strict=True))
    return {**named, "base_rate": len(b) / (len(a) + len(b)), "bootstrap": bootstrap}


def auroc_difference(
    one: tuple[npt.ArrayLike, npt.ArrayLike],
    other: tuple[npt.ArrayLike, npt.ArrayLike],
    *,
    confidence: float = 0.95,
    repetitions: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """AUROC of one score less that of another on the same images, paired in every bootstrap draw.

    Args:
        one: scores of familiar images ``(N,)`` and of strange ones ``(M,)``.
        other: another score of the same images.
        confidence: as :func:`detection`, as are the other options.

    Returns:
        ``value``, ``low`` and ``high``.

    Raises:
        InputError: as :func:`detection`; scores of other numbers of images.

    Example:
        >>> auroc_difference(([0.0, 1.0], [2.0, 3.0]), ([0.0, 2.5], [2.0, 3.0]))["value"]
        0.25
    """
    pairs = [(_checked(inside, "inside"), _checked(outside, "outside")) for inside, outside in (one, other)]
    sizes = [(len(a), len(b)) for a, b in pairs]
    if sizes[0] != sizes[1]:
        raise InputError(f"other: expected scores of the same images, {sizes[0]} of them, got {sizes[1]}")
    first, second = (_Order(a, b) for a, b in pairs)

    def difference(inside: _Floats, outside: _Floats) -> _Floats:
        return first.measures(inside, outside)[:1] - second.measures(inside, outside)[:1]

    (found,) = _with_intervals(difference, sizes[0], confidence=confidence, repetitions=repetitions, seed=seed)
    return found


def _with_intervals(
    measures: Callable[[_Floats, _Floats], _Floats],
    sizes: tuple[int, int],
    *,
    confidence: float,
    repetitions: int,
    seed: int,
) -> list[dict[str, float]]:
    """Each measure of all images, with the percentile interval over resampled ones."""
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence: expected a number in (0, 1), got {confidence}")
    if repetitions < 1:
        raise InputError(f"repetitions: expected at least 1, got {repetitions}")
    values = measures(*(np.ones((1, size)) for size in sizes))[:, 0]
    rng = np.random.default_rng(seed)
    drawn = []
    chunk = max(1, _CHUNK_VALUES // sum(sizes))
    for start in range(0, repetitions, chunk):
        count = min(chunk, repetitions - start)
        drawn.append(measures(*(_resampled(rng, count, size) for size in sizes)))
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(np.concatenate(drawn, axis=1), [tail, 100.0 - tail], axis=1)
    return [{"value": float(values[i]), "low": float(low[i]), "high": float(high[i])} for i in range(len(values))]


def roc_curve(inside: npt.ArrayLike, outside: npt.ArrayLike) -> tuple[_Floats, _Floats]:
    """False and true positive rates from (0, 0) to (1, 1), one point a distinct score.

    Example:
        >>> fpr, tpr = roc_curve([0.0, 1.0], [2.0])
        >>> fpr.tolist(), tpr.tolist()
        ([0.0, 0.0, 0.5, 1.0], [0.0, 1.0, 1.0, 1.0])
    """
    a, b = _checked(inside, "inside"), _checked(outside, "outside")
    false, true = _Order(a, b).rates(np.ones((1, len(a))), np.ones((1, len(b))))
    return np.concatenate([[0.0], false[0]]), np.concatenate([[0.0], true[0]])


class _Order:
    """The scores from the largest down, so that a resampling is a matter of weights."""

    def __init__(self, inside: _Floats, outside: _Floats) -> None:
        scores = np.concatenate([inside, outside])
        self._order = np.argsort(-scores, kind="stable")
        ranked = scores[self._order]
        self._positive = (np.arange(len(scores)) >= len(inside))[self._order]
        # Equal scores are flagged together: what counts is the last of them.
        self._last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)

    def rates(self, inside: _Floats, outside: _Floats) -> tuple[_Floats, _Floats]:
        """False and true positive rates at each distinct score, for rows of weights."""
        false, true = self._counts(inside, outside)
        return false / false[:, -1:], true / true[:, -1:]

    def measures(self, inside: _Floats, outside: _Floats) -> _Floats:
        """``(3, R)`` for weights ``(R, N)`` and ``(R, M)``."""
        false, true = self._counts(inside, outside)
        fpr, tpr = false / false[:, -1:], true / true[:, -1:]
        rise = np.diff(tpr, prepend=0.0)
        auroc = (np.diff(fpr, prepend=0.0) * (tpr - rise / 2)).sum(1)
        flagged = false + true
        auprc = (rise * np.divide(true, flagged, out=np.zeros_like(true), where=flagged > 0)).sum(1)
        # Counts are exact where rates are rounded.
        enough = true >= _TPR * true[:, -1:] * (1 - 1e-12)
        fpr95 = fpr[np.arange(len(fpr)), enough.argmax(1)]
        return np.stack([auroc, auprc, fpr95])

    def _counts(self, inside: _Floats, outside: _Floats) -> tuple[_Floats, _Floats]:
        weights = np.concatenate([inside, outside], axis=1)[:, self._order]
        false = np.where(self._positive, 0.0, weights).cumsum(1)[:, self._last]
        true = np.where(self._positive, weights, 0.0).cumsum(1)[:, self._last]
        return false, true


def _resampled(rng: np.random.Generator, repetitions: int, count: int) -> _Floats:
    """How often each of ``count`` scores is drawn, ``(R, count)``."""
    return rng.multinomial(count, np.full(count, 1 / count), size=repetitions).astype(np.float64)


def _checked(values: npt.ArrayLike, name: str) -> _Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name}: expected scores (N,) of at least one image, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite scores, got {int((~np.isfinite(array)).sum())} that are not")
    return array
