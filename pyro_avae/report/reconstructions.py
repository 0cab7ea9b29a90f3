"""Test images over their reconstructions."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pyro_avae.evaluation import frozen, reconstruct
from pyro_avae.report.images import image_grid
from pyro_avae.report.style import Picture
from pyro_avae.report.subjects import Subject

__all__ = ["Strip", "reconstruction_strips"]

_IMAGES = 12


@dataclass(frozen=True)
class Strip:
    """A row of images and what it is."""

    label: str
    picture: Picture


def reconstruction_strips(subjects: Sequence[Subject]) -> list[Strip]:
    """The first test images of one data set, and each pair's reconstruction of them: decoder mean at posterior mean."""
    x, _ = subjects[0].test_images(_IMAGES)
    strips = [Strip("test images", image_grid(x[None], f"The first {len(x)} test images of {subjects[0].data.name}."))]
    for subject in subjects:
        with torch.no_grad(), frozen(subject.model, subject.guide):
            images = reconstruct(subject.model, subject.guide, x)
        alt = f"Reconstructions of the same images by {subject.run.label}."
        strips.append(Strip(subject.run.label, image_grid(images[None], alt)))
    return strips
