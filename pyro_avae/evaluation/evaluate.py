"""Everything that is measured on a trained pair, as the content of ``evaluation.json``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.attacks import check_epsilons, check_pgd
from pyro_avae.evaluation.autoattack import (
    AUTOATTACK_IMAGES,
    autoattack_parts,
    autoattack_settings,
    require_torchattacks,
)
from pyro_avae.evaluation.bound import bound_terms
from pyro_avae.evaluation.features import Classifier, batches, encode_split
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.likelihood import MIN_PSIS_SAMPLES, log_likelihood, log_weights, psis_khat
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.probe import LinearProbe, fit_probe
from pyro_avae.evaluation.reconstruction import squared_error
from pyro_avae.evaluation.robustness import autoattack_with, pgd_with, robust_accuracy
from pyro_avae.randomness import isolated

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["ATTACKS", "LIKELIHOOD_IMAGES", "Progress", "evaluate"]

#: ``(stage, images done, images in all)``, called as the evaluation goes.
Progress = Callable[[str, int, int], None]

#: The importance-weighted log-likelihood is estimated on this many of the first test images.
LIKELIHOOD_IMAGES = 500


def _nothing_more() -> None:
    """PGD is always run and needs nothing."""


#: The attacks by name, each with a check that it can run here. PGD is part of every one of them.
ATTACKS: dict[str, Callable[[], Any]] = {"pgd": _nothing_more, "autoattack": require_torchattacks}


@dataclass(frozen=True)
class _Settings:
    """The options of :func:`evaluate`, checked."""

    epsilons: tuple[float, ...]
    attack: str
    steps: int
    restarts: int
    limit: int | None
    batch_size: int
    num_importance_samples: int
    seed: int
    progress: Progress | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilons", check_epsilons(self.epsilons))
        check_pgd(self.steps, self.restarts)
        if self.attack not in ATTACKS:
            raise InputError(f"attack: expected one of {', '.join(ATTACKS)}, got {self.attack!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit: expected at least 1 test image, got {self.limit}")
        if self.batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {self.batch_size}")
        if self.num_importance_samples < MIN_PSIS_SAMPLES:
            raise InputError(
                f"num_importance_samples: expected at least {MIN_PSIS_SAMPLES} (PSIS needs a tail), "
                f"got {self.num_importance_samples}"
            )
        ATTACKS[self.attack]()

    def stage(self, name: str) -> Callable[[int, int], None] | None:
        """The progress callback of one stage."""
        return None if self.progress is None else partial(self.progress, name)


def evaluate(
    model: Model,
    guide: Guide,
    data: ImageData,
    *,
    epsilons: Sequence[float] = (0.0, 0.1, 0.2),
    attack: str = "pgd",
    steps: int = 40,
    restarts: int = 2,
    limit: int | None = None,
    batch_size: int = 500,
    num_importance_samples: int = 256,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a trained pair on the test set: robustness, reconstruction, bound, likelihood.

    The probes are fitted on the whole training set, in its fixed form. The pair is put into eval mode and back, and
    torch's random state is left as it was; one seed gives one result.

    Args:
        model: p(x|z) p(z), with ``decode`` and ``observe``.
        guide: q(z|x), with ``encode`` and ``posterior``.
        data: images in [0, 1] with the labels of each task.
        epsilons: L∞ radii in [0, 1].
        attack: ``"pgd"``, or ``"autoattack"`` to run AutoAttack beside it.
        steps: steps of PGD.
        restarts: random starts of PGD, of which the worst counts.
        limit: use only the first ``limit`` test images; AutoAttack takes 1,000 where there is no limit.
        batch_size: images at a time.
        num_importance_samples: S of the importance-weighted log-likelihood, on the first 500 test images.
        seed: seed of every random number used here.
        progress: called with ``(stage, done, total)``.

    Returns:
        A dictionary of plain numbers, strings, lists and dictionaries, ready for JSON. By task ``accuracy`` and, where
        it ran, ``accuracy_autoattack`` by ``str(epsilon)``, ``probe`` and ``majority`` (the share of the most frequent
        test class). ``mse`` is per pixel on [0, 1], ``mse_255`` the same on 0-255, ``sse`` the sum over pixels per
        image on [0, 1], all of the posterior mean's reconstruction. ``bound`` holds each term and their ``total``,
        ``log_likelihood`` its importance-weighted estimate: means per image, in nats. ``psis_khat`` says whether the
        latter can be trusted. A number that is not finite is None.

    Raises:
        InputError: for data that are no ``ImageData``, an unknown attack, a radius outside [0, 1], counts below their
            minimum, a missing attack library, or data that a probe cannot be fitted to.

    Example:
        >>> from pyro_avae.data import load_dataset
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> from pyro_avae.models import VAE, MLPDecoder
        >>> _ = torch.manual_seed(0)
        >>> data = load_dataset("color-digits", limit=100)
        >>> model = VAE(MLPDecoder(4, data.shape, hidden=[8]), latent_dim=4, obs_variance=0.5)
        >>> guide = AmortizedGuide(MLPEncoder(data.shape, 4, hidden=[8]))
        >>> result = evaluate(model, guide, data, epsilons=[0.0, 0.1], steps=2, limit=20)
        >>> sorted(result["tasks"]["digit"]["accuracy"])
        ['0.0', '0.1']
    """
    settings = _Settings(
        tuple(epsilons), attack, steps, restarts, limit, batch_size, num_importance_samples, seed, progress
    )
    _check_data(data)
    with frozen(model, guide):
        return {
            "num_train_images": len(data.train),
            "num_test_images": _count(data.test, limit),
            "tasks": _tasks(guide, data, settings),
            **_reconstruction_and_bound(model, guide, data.test, settings),
            **_likelihood(model, guide, data.test, settings),
            "attack": _attack(data, settings),
            "evaluation_seed": seed,
        }


def _check_data(data: object) -> None:
    # Only here: whoever evaluates has the data sets imported already, whoever attacks a batch need not.
    from pyro_avae.data import ImageData

    if not isinstance(data, ImageData):
        raise InputError(
            f"data: expected an ImageData, got {type(data).__name__}; load_dataset() gives one, and"
            " ImageData(name, train, test, tasks) makes one of two splits"
        )


def _count(split: Split, limit: int | None) -> int:
    return len(split) if limit is None else min(limit, len(split))


def _tasks(guide: Guide, data: ImageData, settings: _Settings) -> dict[str, Any]:
    """The probe of each task, and its accuracy under attack."""
    if not data.tasks:
        return {}
    features, labels = encode_split(
        guide, data.train, batch_size=settings.batch_size, progress=settings.stage("encode")
    )
    results = {}
    for task, num_classes in data.tasks.items():
        try:
            probe = fit_probe(features, labels[task], num_classes, seed=settings.seed)
        except InputError as error:
            raise InputError(f"task {task!r}: {error}") from error
        results[task] = _task(guide, probe, data.test, task, settings)
    return results


def _task(guide: Guide, probe: LinearProbe, test: Split, task: str, settings: _Settings) -> dict[str, Any]:
    """One task: accuracies, probe, majority rate."""
    classifier = Classifier(guide, probe).to(device_of(guide)).eval()
    attacked = partial(
        robust_accuracy, classifier, test, task, settings.epsilons, seed=settings.seed, batch_size=settings.batch_size
    )
    result: dict[str, Any] = {
        "accuracy": attacked(
            pgd_with(steps=settings.steps, restarts=settings.restarts),
            limit=settings.limit,
            progress=settings.stage(f"pgd: {task}"),
        )
    }
    if settings.attack == "autoattack":
        result["accuracy_autoattack"] = attacked(
            autoattack_with(num_classes=probe.num_classes),
            limit=settings.limit or AUTOATTACK_IMAGES,
            progress=settings.stage(f"autoattack: {task}"),
        )
    classes = torch.cat([y[task] for _, y in batches(test, batch_size=settings.batch_size, limit=settings.limit)])
    return {**result, "probe": probe.summary(), "majority": float(classes.bincount().max()) / len(classes)}


def _reconstruction_and_bound(model: Model, guide: Guide, test: Split, settings: _Settings) -> dict[str, Any]:
    """Squared errors and the terms of the bound, over the test images."""
    device, total = device_of(guide, model), _count(test, settings.limit)
    report = settings.stage("bound")
    squared, pixels, done = 0.0, 1, 0
    bound: dict[str, float] = {}
    with isolated(settings.seed):
        for x, _ in batches(test, batch_size=settings.batch_size, limit=settings.limit):
            x = x.to(device)
            squared += float(squared_error(model, guide, x).double().sum())
            for site, mean in bound_terms(model, guide, x).items():
                bound[site] = bound.get(site, 0.0) + mean * len(x) / total
            pixels, done = x[0].numel(), done + len(x)
            if report is not None:
                report(done, total)
    sse = squared / total
    return {
        "mse": _number(sse / pixels),
        "mse_255": _number(255.0**2 * sse / pixels),
        "sse": _number(sse),
        "bound": {site: _number(value) for site, value in bound.items()},
    }


def _likelihood(model: Model, guide: Guide, test: Split, settings: _Settings) -> dict[str, Any]:
    """Importance-weighted log-likelihood and PSIS k̂ on the first test images."""
    device, total = device_of(guide, model), min(_count(test, settings.limit), LIKELIHOOD_IMAGES)
    report = settings.stage("likelihood")
    estimates: list[Tensor] = []
    khats: list[Tensor] = []
    done = 0
    with isolated(settings.seed):
        for x, _ in batches(test, batch_size=min(settings.batch_size, 100), limit=total):
            weights = log_weights(model, guide, x.to(device), settings.num_importance_samples)
            estimates.append(log_likelihood(weights).double().cpu())
            khats.append(psis_khat(weights).cpu())
            done += len(x)
            if report is not None:
                report(done, total)
    values, khat = torch.cat(estimates), torch.cat(khats)
    return {
        "log_likelihood": _number(values.mean()),
        "psis_khat": {
            "median": _number(khat.median()),
            "max": _number(khat.max()),
            "fraction_above_0.7": float((~(khat <= 0.7)).double().mean()),
        },
        "importance_sampling": {"num_images": total, "num_samples": settings.num_importance_samples},
    }


def _attack(data: ImageData, settings: _Settings) -> dict[str, Any]:
    """The settings of the attacks that ran."""
    described: dict[str, Any] = {
        "name": settings.attack,
        "norm": "Linf",
        "epsilons": list(settings.epsilons),
        "pgd": {
            "steps": settings.steps,
            "restarts": settings.restarts,
            "step_size": "2.5 * epsilon / steps",
            "loss": "cross entropy, untargeted",
            "random_start": True,
            "num_images": _count(data.test, settings.limit),
        },
    }
    if settings.attack == "autoattack":
        described["autoattack"] = {
            **autoattack_settings(),
            "parts": {task: list(autoattack_parts(classes)) for task, classes in data.tasks.items()},
            "num_images": _count(data.test, settings.limit or AUTOATTACK_IMAGES),
        }
    return described


def _number(value: float | Tensor) -> float | None:
    """A float that JSON can hold, or None."""
    number = float(value)
    return number if math.isfinite(number) else None
