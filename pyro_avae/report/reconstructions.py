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
_DRAWS = 3


@dataclass(frozen=True)
class Strip:
    """A row of images and what it is."""

    label: str
    picture: Picture


def reconstruction_strips(subjects: Sequence[Subject]) -> list[Strip]:
    """The first test images of one data set, and each pair's reconstruction of them: decoder mean at posterior mean.

    Of a decoder that draws one pixel after another, several draws at the same z: what they share is what is in z.
    """
    x, _ = subjects[0].test_images(_IMAGES)
    strips = [Strip("test images", image_grid(x[None], f"The first {len(x)} test images of {subjects[0].data.name}."))]
    for subject in subjects:
        with torch.no_grad(), frozen(subject.model, subject.guide):
            drawn = bool(getattr(subject.model, "sequential", False))
            rows = [reconstruct(subject.model, subject.guide, x) for _ in range(_DRAWS if drawn else 1)]
        label = f"{subject.run.label}, {_DRAWS} draws at one z" if drawn else subject.run.label
        alt = f"Reconstructions of the same images by {label}."
        strips.append(Strip(label, image_grid(torch.stack(rows), alt)))
    return strips
