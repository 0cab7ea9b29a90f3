"""Accuracy of a probe over a test set, under attack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyro_avae.evaluation.attacks import PGDResult, pgd
from pyro_avae.evaluation.autoattack import autoattack
from pyro_avae.evaluation.ball import LINF, Ball
from pyro_avae.evaluation.baselines import noise, one_step
from pyro_avae.evaluation.features import Classifier, batches
from pyro_avae.evaluation.pair import device_of
from pyro_avae.randomness import isolated

if TYPE_CHECKING:
    from pyro_avae.data import Split

__all__ = [
    "Attack",
    "Standing",
    "autoattack_with",
    "noise_with",
    "one_step_with",
    "pgd_with",
    "robust_accuracy",
    "standing",
    "transfer_with",
]

#: ``(classifier, x, labels, epsilon, seed)`` to what was left standing.
Attack = Callable[[Classifier, Tensor, Tensor, float, int], PGDResult]


def pgd_with(*, steps: int, restarts: int, ball: Ball = LINF) -> Attack:
    """PGD with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        verdict = classifier.predict if classifier.is_random else None
        generator = _generator(x, seed)
        return pgd(
            classifier,
            x,
            labels,
            epsilon,
            ball=ball,
            steps=steps,
            restarts=restarts,
            generator=generator,
            verdict=verdict,
        )

    return attack


def autoattack_with(*, num_classes: int, ball: Ball = LINF) -> Attack:
    """AutoAttack with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        return autoattack(classifier, x, labels, epsilon, num_classes=num_classes, ball=ball, seed=seed)

    return attack


def noise_with(*, ball: Ball = LINF) -> Attack:
    """Random noise with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        return noise(classifier.predict, x, labels, epsilon, ball=ball, generator=_generator(x, seed))

    return attack


def one_step_with(*, ball: Ball = LINF) -> Attack:
    """One gradient step with its settings filled in."""

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        return one_step(classifier, classifier.predict, x, labels, epsilon, ball=ball)

    return attack


def transfer_with(source: Classifier, *, steps: int, ball: Ball = LINF) -> Attack:
    """Images made against ``source`` and tried on the classifier: PGD that takes all its steps, from one start.

    An image that has just crossed the source's boundary lies close to it and would rarely cross another's.
    """

    def attack(classifier: Classifier, x: Tensor, labels: Tensor, epsilon: float, seed: int) -> PGDResult:
        generator = _generator(x, seed)
        made = pgd(
            source, x, labels, epsilon, ball=ball, steps=steps, restarts=1, generator=generator, persistent=True
        ).adversarial
        return PGDResult((classifier.predict(x) == labels) & (classifier.predict(made) == labels), made)

    return attack


def _generator(x: Tensor, seed: int) -> torch.Generator:
    return torch.Generator(x.device).manual_seed(seed)


@dataclass(frozen=True, eq=False)
class Standing:
    """Which images an attack left standing.

    Attributes:
        labels: the right classes, ``(N,)``, on the CPU.
        correct: for each radius, ``(N,)`` bool, on the CPU.

    Example:
        >>> left = Standing(torch.tensor([0, 0, 0, 1]), {0.1: torch.tensor([True, True, True, False])})
        >>> left.accuracy(), left.balanced_accuracy()
        ({'0.1': 0.75}, {'0.1': 0.5})
    """

    labels: Tensor
    correct: Mapping[float, Tensor]

    def accuracy(self) -> dict[str, float]:
        """The share of images still classified right, by ``str(epsilon)``, in [0, 1]."""
        return {str(radius): int(correct.sum()) / len(correct) for radius, correct in self.correct.items()}

    def balanced_accuracy(self) -> dict[str, float]:
        """That share within each class, averaged over the classes that the labels hold, by ``str(epsilon)``."""
        totals = self.labels.bincount()
        present = totals > 0
        shares = {}
        for radius, correct in self.correct.items():
            right = self.labels[correct].bincount(minlength=len(totals))
            shares[str(radius)] = float((right[present].double() / totals[present]).mean())
        return shares


def standing(
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
) -> Standing:
    """Which of the first ``limit`` images are still classified right, at each radius.

    Every radius is attacked from the same random numbers, so that an accuracy does not depend on which other radii are
    asked for. Accuracies need not fall from one radius to the next: each is what this attack achieved. What a random
    classifier draws is seeded too, and torch's random state is left as it was.
    """
    device = device_of(classifier)
    total = len(split) if limit is None else min(limit, len(split))
    results: dict[float, Tensor] = {}
    truth = torch.empty(0, dtype=torch.long)
    for number, epsilon in enumerate(epsilons):
        correct: list[Tensor] = []
        labels: list[Tensor] = []
        done = 0
        for x, y in batches(split, batch_size=batch_size, limit=limit):
            with isolated(seed + done):
                result = attack(classifier, x.to(device), y[task].to(device), epsilon, seed + done)
            correct.append(result.correct.cpu())
            labels.append(y[task].cpu())
            done += len(x)
            if progress is not None:
                progress(number * total + done, len(epsilons) * total)
        results[float(epsilon)], truth = torch.cat(correct), torch.cat(labels)
    return Standing(truth, results)


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
    """The share of the first ``limit`` images still classified right, by ``str(epsilon)``; see :func:`standing`."""
    return standing(
        classifier, split, task, epsilons, attack, seed=seed, batch_size=batch_size, limit=limit, progress=progress
    ).accuracy()
