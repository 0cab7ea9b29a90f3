"""Encode, decode, encode, decode, ...: does an image stay what it was? (the paper's Figure 1)"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pyro_avae.chain import iterated_reconstructions
from pyro_avae.evaluation import frozen
from pyro_avae.report.images import image_grid
from pyro_avae.report.style import Picture, dress, legend, line_style, new_figure, svg_picture
from pyro_avae.report.subjects import Subject

__all__ = ["STEPS", "IteratedGrid", "Kept", "iterated_grid", "kept_class", "kept_curves"]

#: The passes shown, 0 being the image itself.
STEPS = (0, 1, 2, 3, 5, 8, 12, 16, 24, 32)
_IMAGES = 6
_COUNTED = 200


@dataclass(frozen=True)
class IteratedGrid:
    """A row an image, a column a pass."""

    label: str
    steps: tuple[int, ...]
    picture: Picture


@dataclass(frozen=True)
class Kept:
    """How many images are still the same class to the run's own probe after each pass.

    Attributes:
        subject: the pair.
        task: the class in question.
        share: in [0, 1] for pass 0, 1, ..., against the probe's answer on the image itself.
        images: how many were followed.
    """

    subject: Subject
    task: str
    share: np.ndarray
    images: int


def iterated_grid(subject: Subject, *, view: str = "mean") -> IteratedGrid:
    """The first test images after each of :data:`STEPS` passes; posterior mean, and the decoder's ``view``."""
    x, _ = subject.test_images(_IMAGES)
    images = iterated_reconstructions(subject.model, subject.guide, x, STEPS[-1], view=view)
    shown = images[list(STEPS)].transpose(0, 1)
    alt = f"{len(x)} test images, one a row, after {', '.join(map(str, STEPS))} passes through {subject.run.label}."
    return IteratedGrid(subject.run.label, STEPS, image_grid(shown, alt))


def kept_class(subject: Subject, task: str) -> Kept:
    """Follow the first test images through the passes with the run's own probe."""
    x, _ = subject.test_images(_COUNTED)
    classifier = subject.classifier(task)
    images = iterated_reconstructions(subject.model, subject.guide, x, STEPS[-1])
    with torch.no_grad(), frozen(subject.model, subject.guide):
        answers = torch.stack([classifier(step).argmax(-1) for step in images])
    share = (answers == answers[0]).double().mean(1).cpu().numpy()
    return Kept(subject, task, share, len(x))


def kept_curves(kept: Sequence[Kept]) -> Picture:
    """The shares over passes, a panel a task."""
    tasks = list(dict.fromkeys(one.task for one in kept))
    figure, axes = new_figure(1, len(tasks), width=4.6 * len(tasks), height=2.8, sharey=True)
    handles = {}
    for axis, task in zip(axes, tasks, strict=True):
        for one in kept:
            if one.task == task:
                style = {**line_style(one.subject.number), "markevery": 4, "markersize": 4}
                (handles[one.subject.number],) = axis.plot(100 * one.share, linewidth=1.5, **style)
        dress(axis, title=task, xlabel="passes of encoder and decoder", ylabel="still the same class, %")
        axis.set_ylim(-3, 103)
    labels = {one.subject.number: one.subject.run.label for one in kept}
    legend(figure, list(handles.values()), [labels[number] for number in handles])
    ends = "; ".join(f"{one.task}, {one.subject.run.label}: {100 * one.share[-1]:.0f} %" for one in kept)
    return svg_picture(figure, f"Share of images still the same class over passes; after {STEPS[-1]} passes: {ends}.")
