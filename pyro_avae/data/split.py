"""Images and labels of one data set, as tensors that live on the device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["ImageData", "Split"]

Batch = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Split:
    """One half of a data set, training or test.

    Args:
        images: uint8 (N, C, H, W), 255 for full intensity.
        labels: for each task the classes, int64 (N,), on the images' device; empty where there are none.

    Raises:
        InputError: the images are not uint8 (N, C, H, W) with N >= 1, or labels are not int64 (N,) beside
            them.

    Example:
        >>> split = Split(torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1), {})
        >>> x, labels = split.fixed_batch(torch.tensor([2, 1]))
        >>> x.flatten().tolist() == [1.0, torch.tensor(0.2).item()], labels
        (True, {})
    """

    images: Tensor
    labels: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        images = self.images
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) == 0:
            raise InputError(
                f"images: expected uint8 of shape (N, C, H, W), N >= 1, got {images.dtype} of {tuple(images.shape)}"
            )
        for task, values in self.labels.items():
            if values.dtype != torch.int64 or values.shape != images.shape[:1] or values.device != images.device:
                raise InputError(
                    f"labels[{task!r}]: expected int64 of shape ({len(images)},) on {images.device}, "
                    f"got {values.dtype} of {tuple(values.shape)} on {values.device}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def device(self) -> torch.device:
        """Where the images, the labels and every batch are."""
        return self.images.device

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def pixels(self, indices: Tensor) -> Tensor:
        """The images at ``indices`` as they are kept, uint8 (B, ...), on this split's device."""
        return self.images[indices.to(self.device)]

    def augmented(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """What training makes of :meth:`pixels`, float32 (B, C, H, W) in [0, 1], where they are.

        Args:
            pixels: on any device.
            generator: the source of what is random, on the pixels' device; None for torch's global one.
        """
        return _as_floats(pixels)

    def batch(self, indices: Tensor, generator: torch.Generator | None) -> Batch:
        """The images at ``indices`` with fresh randomness, for training; plain images have none.

        Args:
            indices: int64 (B,), on any device.
            generator: the source of the randomness, on this split's device; None for torch's global one.

        Returns:
            float32 (B, C, H, W) in [0, 1] and, for each task, int64 (B,), both on this split's device.
        """
        return self.fixed_batch(indices)

    def fixed_batch(self, indices: Tensor) -> Batch:
        """The images at ``indices``, the same at every call: what the probe and every evaluation read."""
        indices = indices.to(self.device)
        return _as_floats(self.images[indices]), {task: values[indices] for task, values in self.labels.items()}

    def to(self, device: torch.device | str) -> Self:
        """This split on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def limit(self, count: int) -> Self:
        """The first ``count`` images, or all if there are fewer."""
        return self._each(lambda tensor: tensor[:count])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """This split with every tensor changed at once: one on two devices or of two lengths is refused."""
        labels = {task: change(values) for task, values in self.labels.items()}
        return replace(self, images=change(self.images), labels=labels)


def _as_floats(pixels: Tensor) -> Tensor:
    return pixels.to(torch.float32) / 255


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set: two splits and what their labels mean.

    Args:
        name: what :func:`~pyro_avae.data.load_dataset` calls it.
        train: the training split.
        test: the test split.
        class_names: for each task the names of its classes, in the order of their labels.

    Raises:
        InputError: the splits' images differ in shape.

    Example:
        >>> split = Split(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), {"digit": torch.tensor([0, 1, 1, 0])})
        >>> data = ImageData("toy", split, split, {"digit": ("zero", "one")})
        >>> data.shape, data.tasks, len(data.limit(3).train)
        ((1, 2, 2), {'digit': 2}, 3)
    """

    name: str
    train: Split
    test: Split
    class_names: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if self.train.shape != self.test.shape:
            raise InputError(
                f"{self.name}: expected training and test images of one shape, got {self.train.shape} "
                f"and {self.test.shape}"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images in a batch."""
        return self.train.shape

    @property
    def tasks(self) -> dict[str, int]:
        """For each task its number of classes."""
        return {task: len(names) for task, names in self.class_names.items()}

    def to(self, device: torch.device | str) -> Self:
        """This data set on another device."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))

    def limit(self, count: int) -> Self:
        """The first ``count`` images of both splits."""
        return replace(self, train=self.train.limit(count), test=self.test.limit(count))
