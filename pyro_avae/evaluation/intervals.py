r"""How sure a number is that was measured on a few seeds.

Mean and standard error for one number; for a matrix of runs and tasks the interquartile mean with a stratified
bootstrap interval (Agarwal et al. 2021, arXiv 2108.13264).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from pyro_avae.errors import InputError

__all__ = ["interquartile_interval", "interquartile_mean", "mean_and_standard_error"]

# Values that one chunk of bootstrap repetitions may hold (32 MiB).
_CHUNK_VALUES = 2**22


def mean_and_standard_error(values: npt.ArrayLike) -> dict[str, Any]:
    r"""The mean of one number over seeds, and :math:`s / \sqrt{n}`, s² with n − 1 in the denominator.

    Args:
        values: ``(n,)``, one value a seed.

    Returns:
        ``mean``, ``standard_error`` (None for one seed, which says nothing about the spread) and ``n``.

    Raises:
        InputError: for no values, values that are not finite, or more than one dimension.

    Example:
        >>> mean_and_standard_error([1.0, 3.0])
        {'mean': 2.0, 'standard_error': 1.0, 'n': 2}
    """
    array = _finite(values, "values", dimensions=1)
    error = float(array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else None
    return {"mean": float(array.mean()), "standard_error": error, "n": len(array)}


def interquartile_mean(scores: npt.ArrayLike) -> float:
    """The mean of what is left when ⌊n/4⌋ of all n scores are dropped at either end.

    Args:
        scores: of any shape; all entries are pooled.

    Raises:
        InputError: for no scores or scores that are not finite.

    Example:
        >>> interquartile_mean([[0.0, 1.0], [2.0, 100.0]])
        1.5
    """
    return float(_trimmed_mean(_finite(scores, "scores").reshape(1, -1))[0])


def interquartile_interval(
    scores: npt.ArrayLike, *, confidence: float = 0.95, repetitions: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """The interquartile mean of a matrix of scores and its stratified bootstrap percentile interval.

    Each repetition draws, for each task by itself, as many runs as there are, with replacement. The interval speaks of
    the randomness of the runs, with the tasks as given; with fewer than about ten runs it is somewhat too short.

    Args:
        scores: ``(runs, tasks)``; ``(runs,)`` is one task.
        confidence: the interval's nominal coverage, in (0, 1).
        repetitions: bootstrap draws.
        seed: seed of the draws.

    Returns:
        ``iqm``, ``low``, ``high``, ``confidence``, ``runs``, ``tasks``, ``repetitions``, ``seed``.

    Raises:
        InputError: for fewer than two runs, scores that are not finite, or an impossible confidence or count.

    Example:
        >>> result = interquartile_interval([[0.9, 0.8], [0.8, 0.7], [0.7, 0.9]])
        >>> round(result["iqm"], 3), result["low"] < result["iqm"] < result["high"]
        (0.8, True)

    Source: R. Agarwal, M. Schwarzer, P. S. Castro, A. Courville, M. G. Bellemare, *Deep Reinforcement Learning at the
        Edge of the Statistical Precipice*, NeurIPS 2021.
    """
    matrix = _finite(scores, "scores")
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or len(matrix) < 2:
        raise InputError(f"scores: expected (runs, tasks) with at least 2 runs, got shape {np.shape(scores)}")
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence: expected a number in (0, 1), got {confidence}")
    if repetitions < 1:
        raise InputError(f"repetitions: expected at least 1, got {repetitions}")
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(_bootstrap(matrix, repetitions, seed), [tail, 100.0 - tail])
    return {
        "iqm": interquartile_mean(matrix),
        "low": float(low),
        "high": float(high),
        "confidence": confidence,
        "runs": matrix.shape[0],
        "tasks": matrix.shape[1],
        "repetitions": repetitions,
        "seed": seed,
    }


def _bootstrap(matrix: npt.NDArray[np.float64], repetitions: int, seed: int) -> npt.NDArray[np.float64]:
    """The interquartile mean of each repetition, ``(repetitions,)``."""
    rng = np.random.default_rng(seed)
    tasks = np.arange(matrix.shape[1])
    chunk = max(1, _CHUNK_VALUES // matrix.size)
    means = []
    for start in range(0, repetitions, chunk):
        runs = rng.integers(len(matrix), size=(min(chunk, repetitions - start), *matrix.shape))
        means.append(_trimmed_mean(matrix[runs, tasks].reshape(len(runs), -1)))
    return np.concatenate(means)


def _trimmed_mean(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The interquartile mean of each row."""
    cut = rows.shape[1] // 4
    middle: npt.NDArray[np.float64] = np.sort(rows, axis=1)[:, cut : rows.shape[1] - cut].mean(axis=1)
    return middle


def _finite(values: npt.ArrayLike, name: str, *, dimensions: int | None = None) -> npt.NDArray[np.float64]:
    """The values as an array, or an error that says what is wrong with them."""
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0 or (dimensions is not None and array.ndim != dimensions):
        raise InputError(f"{name}: expected numbers, one a seed, got an array of shape {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{name}: expected finite numbers, got {int((~np.isfinite(array)).sum())} that are not")
    return array
