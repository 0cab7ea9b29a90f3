"""Accuracy of a probe over a test set, under attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_avae.evaluation.attacks import PGDResult, pgd
from pyro_avae.evaluation.autoattack import autoattack
from pyro_avae.evaluation.features import Classifier, batches
from pyro_avae.evaluation.pair import device_of

if TYPE_CHECKING:
    from pyro_avae.data import Split

__all__ = ["Attack", "autoattack_with", "pgd_with", "robust_accuracy"]

#: ``(classifier, x, labels, epsilon, seed)`` to what was left standing.
Attack = Callable[[Classifier, Tensor, Tensor, float, int], PGDResult]


def pgd_with(*, steps: int, restarts: int) -> Attack:
    """PGD with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        generator = torch.Generator(x.device).manual_seed(seed)
        return pgd(classifier, x, labels, epsilon, steps=steps, restarts=restarts, generator=generator)

    return attack


def autoattack_with(*, num_classes: int) -> Attack:
    """AutoAttack with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        return autoattack(classifier, x, labels, epsilon, num_classes=num_classes, seed=seed)

    return attack


def robust_accuracy(
    classifier: Classifier,
    split: Split,
    task: str,
    epsilons: Sequence[float],
    attack: Attack,
    *,
    seed: int = 0,
    batch_size: int = 500,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """The share of the first ``limit`` images still classified right, by ``str(epsilon)``, in [0, 1].

    Every radius is attacked from the same random numbers, so that an accuracy does not depend on which other radii are
    asked for. Accuracies need not fall from one radius to the next: each is what this attack achieved.
    """
    device = device_of(classifier)
    total = len(split) if limit is None else min(limit, len(split))
    accuracies = {}
    for number, epsilon in enumerate(epsilons):
        correct = done = 0
        for x, labels in batches(split, batch_size=batch_size, limit=limit):
            result = attack(classifier, x.to(device), labels[task].to(device), epsilon, seed + done)
            correct += int(result.correct.sum())
            done += len(x)
            if progress is not None:
                progress(number * total + done, len(epsilons) * total)
        accuracies[str(float(epsilon))] = correct / total
    return accuracies
