"""Colouring of grey images with the seven corners of the RGB cube that are not black."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from pyro_avae.data.split import Batch, ImageData, Split
from pyro_avae.errors import InputError

__all__ = ["COLORS", "ColoredSplit", "color_data"]

COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (1, 0, 0),
    "green": (0, 1, 0),
    "yellow": (1, 1, 0),
    "blue": (0, 0, 1),
    "magenta": (1, 0, 1),
    "cyan": (0, 1, 1),
    "white": (1, 1, 1),
}
"""Name to (red, green, blue); a colour's label is its place here, red 0 to white 6."""

_TRAIN_SEED = 1904
_TEST_SEED = 2001


@dataclass(frozen=True, eq=False)
class ColoredSplit(Split):
    """Grey images that get a colour when they are asked for: x[b, c] = colour[b, c] · grey[b].

    :meth:`batch` draws each image's colour afresh, uniform over the seven; :meth:`fixed_batch` takes
    ``colors``. Both add the task ``color`` to the labels.

    Args:
        images: uint8 (N, 1, H, W).
        labels: as in :class:`~pyro_avae.data.Split`.
        colors: the labels of the fixed colours, int64 (N,), on the images' device.

    Raises:
        InputError: the images are not grey, or the colours are not int64 (N,) in 0..6 beside them.

    Example:
        >>> grey = torch.full((1, 1, 1, 1), 255, dtype=torch.uint8)
        >>> split = ColoredSplit(grey, {}, colors=torch.tensor([2]))
        >>> x, labels = split.fixed_batch(torch.tensor([0]))
        >>> x.flatten().tolist(), list(COLORS)[labels["color"]]
        ([1.0, 1.0, 0.0], 'yellow')

    Source: Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020
        (ColorMNIST).
    """

    colors: Tensor
    _palette: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images.shape[1] != 1:
            raise InputError(f"images: expected 1 channel to colour, got {self.images.shape[1]}")
        colors = self.colors
        if (
            colors.dtype != torch.int64
            or colors.shape != self.images.shape[:1]
            or colors.device != self.device
            or not bool(((colors >= 0) & (colors < len(COLORS))).all())
        ):
            raise InputError(
                f"colors: expected int64 of shape ({len(self)},) in 0..{len(COLORS) - 1} on {self.device}, "
                f"got {colors.dtype} of {tuple(colors.shape)} on {colors.device}"
            )
        # Made once, on the device: a table copied from the host in every batch would make the device wait.
        palette = torch.tensor(list(COLORS.values()), dtype=torch.float32, device=self.device)
        object.__setattr__(self, "_palette", palette)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(3, H, W): red, green, blue."""
        _, height, width = super().shape
        return 3, height, width

    def augmented(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Grey images in colours drawn from ``generator``."""
        return self._colored(super().augmented(pixels), self._drawn(len(pixels), pixels.device, generator))

    def batch(self, indices: Tensor, generator: torch.Generator | None) -> Batch:
        """The images at ``indices`` in colours drawn from ``generator``, which is on this split's device."""
        if generator is not None and generator.device.type != self.device.type:
            raise InputError(
                f"generator: expected a torch.Generator on {self.device}, where the images are, got one on "
                f"{generator.device}"
            )
        return self._batch(indices, self._drawn(len(indices), self.device, generator))

    def fixed_batch(self, indices: Tensor) -> Batch:
        """The images at ``indices`` in this split's fixed colours."""
        return self._batch(indices, self.colors[indices.to(self.device)])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        labels = {task: change(values) for task, values in self.labels.items()}
        return replace(self, images=change(self.images), labels=labels, colors=change(self.colors))

    def _batch(self, indices: Tensor, colors: Tensor) -> Batch:
        grey, labels = super().fixed_batch(indices)
        return self._colored(grey, colors), {**labels, "color": colors}

    def _colored(self, grey: Tensor, colors: Tensor) -> Tensor:
        return self._palette.to(grey.device)[colors][:, :, None, None] * grey

    @staticmethod
    def _drawn(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
        return torch.randint(len(COLORS), (count,), generator=generator, device=device)


def color_data(data: ImageData) -> ImageData:
    """A grey data set, coloured: ``NAME`` becomes ``color-NAME`` and gets the task ``color``.

    Both splits' fixed colours are drawn once, on the CPU and from seeds of their own, so they are the same on
    every device, in every process and under every limit (limit the result, not ``data``).

    Raises:
        InputError: the images of ``data`` are not grey.

    Example:
        >>> from pyro_avae.data import load_dataset
        >>> data = load_dataset("color-digits", limit=5)
        >>> data.shape, data.tasks
        ((3, 28, 28), {'digit': 10, 'color': 7})
    """
    return ImageData(
        name=f"color-{data.name}",
        train=_color_split(data.train, _TRAIN_SEED),
        test=_color_split(data.test, _TEST_SEED),
        class_names={**data.class_names, "color": tuple(COLORS)},
    )


def _color_split(split: Split, seed: int) -> ColoredSplit:
    generator = torch.Generator("cpu").manual_seed(seed)
    colors = torch.randint(len(COLORS), (len(split),), generator=generator)
    return ColoredSplit(split.images, split.labels, colors=colors.to(split.device))
