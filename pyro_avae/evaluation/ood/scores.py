"""Every score of a trained pair on two sets of images, as the content of ``ood.json``."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.likelihood import log_likelihood, log_weights
from pyro_avae.evaluation.ood.baselines import (
    chain_drift,
    complexity_score,
    likelihood_ratio,
    png_bits,
    typicality,
    waic,
)
from pyro_avae.evaluation.ood.metrics import detection
from pyro_avae.evaluation.ood.regret import likelihood_regret
from pyro_avae.evaluation.ood.variants import VARIANTS
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.settings import Progress
from pyro_avae.randomness import isolated

__all__ = ["LABELS", "TRAIN_IMAGES", "Pair", "evaluate_ood", "ood_scores"]

#: What each score is called; all are larger for stranger images.
LABELS: Mapping[str, str] = {
    "log_likelihood": "-log p(x)",
    "regret_free": "likelihood regret, free posterior",
    "regret_encoder": "likelihood regret, encoder",
    "complexity": "-log p(x) - PNG length",
    "likelihood_ratio": "likelihood ratio",
    "waic": "WAIC",
    "typicality": "typicality",
    "drift": "drift, one pass",
    "chain_drift": "drift of the chain",
}

#: Passes of the chain whose drift is told beside that of one.
CHAIN_PASSES = 5
#: The mean log p of training images, for typicality, is that of this many of the first.
TRAIN_IMAGES = 500
_BATCH = 100


class Pair(NamedTuple):
    """A trained model with its guide."""

    model: Model
    guide: Guide


def evaluate_ood(
    model: Model,
    guide: Guide,
    inside: Tensor,
    outside: Tensor,
    *,
    train: Tensor,
    background: Pair | None = None,
    ensemble: Sequence[Pair] = (),
    variants: Sequence[str] = tuple(VARIANTS),
    steps: int = 100,
    lr: float | None = None,
    num_samples: int = 8,
    num_importance_samples: int = 50,
    repetitions: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score familiar and strange images, and measure how well each score tells them apart.

    Args:
        model: p(x|z) p(z), with ``observe`` and ``decode``; any likelihood.
        guide: q(z|x), with ``encode`` and ``posterior``.
        inside: images like those the pair was trained on, but not those, ``(N, *event)``.
        outside: others of the same shape, ``(M, *event)``.
        train: training images, for typicality; the first 500 are used.
        background: another pair, trained on images with noise in them, for the likelihood ratio.
        ensemble: pairs of other seeds, for WAIC.
        variants: of the regret, names of :data:`~pyro_avae.evaluation.ood.VARIANTS`.
        steps: of the regret's optimisation.
        lr: of the regret's optimisation, by default each variant's.
        num_samples: S of the regret's ELBO.
        num_importance_samples: S of log p(x).
        repetitions: of the bootstrap.
        seed: of every random number; torch's own random state is left as it was.
        progress: called with ``(stage, done, total)``.

    Returns:
        ``scores``: by name :func:`~pyro_avae.evaluation.ood.detection`'s measures, the mean score of either set and
        the scores themselves (``values``), in nats; ``absent``: by name why a score is not there; the settings.

    Raises:
        InputError: sets of different shapes, an unknown variant, counts below their minimum, scores that are not
            finite.
    """
    if inside.shape[1:] != outside.shape[1:]:
        raise InputError(
            f"outside: expected images of shape {tuple(inside.shape[1:])}, as the familiar ones, got"
            f" {tuple(outside.shape[1:])}"
        )
    for variant in variants:
        if variant not in VARIANTS:
            raise InputError(f"variants: expected some of {', '.join(VARIANTS)}, got {variant!r}")
    train_log_p = _log_p(model, guide, train[:TRAIN_IMAGES], num_importance_samples, seed, progress, "log p, training")
    sides = {}
    for name, x in (("inside", inside), ("outside", outside)):
        sides[name] = ood_scores(
            model,
            guide,
            x,
            train_log_p=train_log_p,
            background=background,
            ensemble=ensemble,
            variants=variants,
            steps=steps,
            lr=lr,
            num_samples=num_samples,
            num_importance_samples=num_importance_samples,
            seed=seed,
            progress=_named(progress, name),
        )
    familiar, strange = sides["inside"], sides["outside"]
    return {
        "num_images": {"inside": len(inside), "outside": len(outside), "train": min(len(train), TRAIN_IMAGES)},
        "scores": {name: _measured(familiar[name], strange[name], repetitions, seed) for name in familiar},
        "absent": _absent(familiar, variants),
        "settings": {
            "steps": steps,
            "lr": {name: VARIANTS[name].lr if lr is None else lr for name in variants},
            "num_samples": num_samples,
            "bound": "elbo",
            "num_importance_samples": num_importance_samples,
            "chain_passes": CHAIN_PASSES,
            "ensemble": 1 + len(ensemble),
            "seed": seed,
        },
    }


def ood_scores(
    model: Model,
    guide: Guide,
    x: Tensor,
    *,
    train_log_p: Tensor,
    background: Pair | None = None,
    ensemble: Sequence[Pair] = (),
    variants: Sequence[str] = tuple(VARIANTS),
    steps: int = 100,
    lr: float | None = None,
    num_samples: int = 8,
    num_importance_samples: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """Scores of images ``(N, *event)`` by name, each ``(N,)`` float64 on the CPU; see :func:`evaluate_ood`.

    What needs another pair, or images that a PNG file can hold, is left out where there is none.
    """

    def log_p(pair: Pair, stage: str) -> Tensor:
        return _log_p(pair.model, pair.guide, x, num_importance_samples, seed, progress, stage)

    own = log_p(Pair(model, guide), "log p")
    scores = {"log_likelihood": -own}
    for name in variants:
        scores[f"regret_{name}"] = likelihood_regret(
            model,
            guide,
            x,
            variant=VARIANTS[name],
            steps=steps,
            lr=lr,
            num_samples=num_samples,
            seed=seed,
            progress=_named(progress, name),
        ).regret
    if x.dim() == 4 and x.shape[1] in (1, 3):
        scores["complexity"] = complexity_score(own, png_bits(x))
    if background is not None:
        scores["likelihood_ratio"] = likelihood_ratio(own, log_p(background, "log p, background"))
    if ensemble:
        others = [log_p(pair, f"log p, seed {number}") for number, pair in enumerate(ensemble, start=2)]
        scores["waic"] = waic(torch.stack([own, *others]))
    scores["typicality"] = typicality(own, train_log_p)
    scores["drift"] = chain_drift(model, guide, x)
    scores["chain_drift"] = chain_drift(model, guide, x, passes=CHAIN_PASSES)
    return {name: scores[name].double().cpu() for name in LABELS if name in scores}


def _log_p(
    model: Model, guide: Guide, x: Tensor, samples: int, seed: int, progress: Progress | None, stage: str
) -> Tensor:
    """The importance-weighted log p(x), ``(N,)`` float64 on the CPU."""
    found: list[Tensor] = []
    with frozen(model, guide), isolated(seed):
        for part in x.split(_BATCH):
            weights = log_weights(model, guide, part.to(device_of(guide, model)), samples)
            found.append(log_likelihood(weights).double().cpu())
            if progress is not None:
                progress(stage, sum(map(len, found)), len(x))
    return torch.cat(found)


def _measured(inside: Tensor, outside: Tensor, repetitions: int, seed: int) -> dict[str, Any]:
    a, b = inside.tolist(), outside.tolist()
    means = {"inside": sum(a) / len(a), "outside": sum(b) / len(b)}
    found = detection(a, b, repetitions=repetitions, seed=seed)
    return {**found, "mean": means, "values": {"inside": a, "outside": b}}


def _absent(scores: Mapping[str, Tensor], variants: Sequence[str]) -> dict[str, str]:
    reasons = {
        **{f"regret_{name}": "not asked for" for name in VARIANTS if name not in variants},
        "complexity": "takes images of one or three channels",
        "likelihood_ratio": "takes another run, of the background",
        "waic": "takes runs of several seeds",
    }
    return {name: reason for name, reason in reasons.items() if name not in scores}


def _named(progress: Progress | None, name: str) -> Progress | None:
    if progress is None:
        return None
    return lambda stage, done, total: progress(f"{name}: {stage}", done, total)
