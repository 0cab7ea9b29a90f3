"""Test images, attacked, and what the probe says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pyro_avae.evaluation import frozen, pgd
from pyro_avae.report.images import image_picture
from pyro_avae.report.style import Picture
from pyro_avae.report.subjects import Subject

__all__ = ["AttackedImage", "AttackedRow", "attacked_row", "clean_images", "shown_epsilon"]

_IMAGES = 8
_STEPS = 40
_RESTARTS = 2


@dataclass(frozen=True)
class AttackedImage:
    """One image and how it is classified.

    Attributes:
        picture: the image.
        said: the class that the probe says.
        right: whether it is the image's class.
    """

    picture: Picture
    said: str
    right: bool


@dataclass(frozen=True)
class AttackedRow:
    """One run's attacked images on one task; ``before`` of them were classified right without the attack."""

    label: str
    before: int
    images: tuple[AttackedImage, ...]

    @property
    def standing(self) -> int:
        """How many are still classified right."""
        return sum(image.right for image in self.images)


def shown_epsilon(evaluation: Mapping[str, Any] | None) -> float:
    """The smallest radius above 0 that the evaluation attacked at, 0.1 where there is none."""
    radii = (evaluation or {}).get("attack", {}).get("epsilons", [])
    return min((float(radius) for radius in radii if float(radius) > 0), default=0.1)


def clean_images(subject: Subject, task: str) -> list[AttackedImage]:
    """The images before the attack, with their true classes."""
    x, labels = subject.test_images(_IMAGES)
    names = subject.data.class_names[task]
    return [
        AttackedImage(image_picture(image, f"test image {place}, {task} {names[int(label)]}"), names[int(label)], True)
        for place, (image, label) in enumerate(zip(x, labels[task], strict=True), start=1)
    ]


def attacked_row(subject: Subject, task: str, *, epsilon: float, seed: int = 0) -> AttackedRow:
    """Attack the first test images with the evaluation's own PGD settings, afresh."""
    x, labels = subject.test_images(_IMAGES)
    settings = (subject.run.evaluation or {}).get("attack", {}).get("pgd", {})
    classifier = subject.classifier(task)
    with frozen(subject.model, classifier):
        result = pgd(
            classifier,
            x,
            labels[task],
            epsilon,
            steps=int(settings.get("steps", _STEPS)),
            restarts=int(settings.get("restarts", _RESTARTS)),
            generator=torch.Generator(x.device).manual_seed(seed),
        )
        with torch.no_grad():
            before = int((classifier(x).argmax(-1) == labels[task]).sum())
            answers = classifier(result.adversarial).argmax(-1)
    names = subject.data.class_names[task]
    return AttackedRow(subject.run.label, before, _images(result.adversarial, answers, labels[task], names, task))


def _images(
    x: torch.Tensor, answers: torch.Tensor, truth: torch.Tensor, names: Sequence[str], task: str
) -> tuple[AttackedImage, ...]:
    images = []
    for place, (image, answer, label) in enumerate(zip(x, answers.tolist(), truth.tolist(), strict=True), start=1):
        alt = f"attacked image {place}, {task} {names[label]}, classified as {names[answer]}"
        images.append(AttackedImage(image_picture(image, alt), names[answer], answer == label))
    return tuple(images)
