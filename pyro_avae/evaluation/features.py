"""The representation of an image: the mean of q(z|x)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from pyro_avae.evaluation.pair import Guide, device_of

if TYPE_CHECKING:
    from pyro_avae.data import Split

__all__ = ["Classifier", "batches", "encode_split", "images_at_a_time", "posterior_mean", "split_labels"]

# More gain nothing on a CPU. Elsewhere a step of an attack is some dozens of launches, however many images there are.
_IMAGES_AT_A_TIME = {"cpu": 500}
_IMAGES_AT_A_TIME_ELSEWHERE = 2000


def images_at_a_time(device: torch.device) -> int:
    """How many images evaluation takes at a time on a device, unless told otherwise.

    Example:
        >>> images_at_a_time(torch.device("cpu"))
        500
    """
    return _IMAGES_AT_A_TIME.get(device.type, _IMAGES_AT_A_TIME_ELSEWHERE)


def posterior_mean(guide: Guide, x: Tensor) -> Tensor:
    """E[z|x] under q, ``x (B, *event)`` to ``(B, L)``: the first of the encoder's two outputs."""
    return guide.encode(x)[0]


def batches(split: Split, *, batch_size: int, limit: int | None = None) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """The first ``limit`` images of ``split`` in order, in their fixed form, with their labels."""
    total = len(split) if limit is None else min(limit, len(split))
    for start in range(0, total, batch_size):
        yield split.fixed_batch(torch.arange(start, min(start + batch_size, total)))


def split_labels(split: Split, *, batch_size: int) -> dict[str, Tensor]:
    """Labels ``{task: (N,)}`` of a whole split in its fixed form, on the CPU; a split may make some of them up."""
    labels: dict[str, list[Tensor]] = {}
    for _, y in batches(split, batch_size=batch_size):
        for task, values in y.items():
            labels.setdefault(task, []).append(values.cpu())
    return {task: torch.cat(values) for task, values in labels.items()}


def encode_split(
    guide: Guide,
    split: Split,
    *,
    batch_size: int = 1000,
    features: Callable[[Guide, Tensor], Tensor] = posterior_mean,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features ``(N, L)``, by default posterior means, and labels ``{task: (N,)}`` of a whole split in its fixed form.

    Features are on the guide's device, where a probe is fitted to them; labels are on the CPU.
    """
    device = device_of(guide)
    encoded: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {}
    done = 0
    with torch.no_grad():
        for x, y in batches(split, batch_size=batch_size):
            encoded.append(features(guide, x.to(device)))
            for task, values in y.items():
                labels.setdefault(task, []).append(values.cpu())
            done += len(x)
            if progress is not None:
                progress(done, len(split))
    return torch.cat(encoded), {task: torch.cat(values) for task, values in labels.items()}


class Classifier(nn.Module):
    """Encoder mean, then probe: the function that the attacks differentiate, ``(B, *event)`` to logits ``(B, K)``.

    Attributes:
        is_random: whether two calls on one image may differ; the attacks then ask :meth:`predict` before they count an
            image as fallen.
    """

    is_random = False

    def __init__(self, guide: Guide, probe: nn.Module) -> None:
        super().__init__()
        self.guide = cast(nn.Module, guide)  # a submodule, so that a library that asks for parameters finds them
        self.probe = probe

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the probe on the posterior mean."""
        logits: Tensor = self.probe(posterior_mean(cast(Guide, self.guide), x))
        return logits

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The class of each image, ``(B,)``, that counts."""
        return cast(Tensor, self(x).argmax(-1))
