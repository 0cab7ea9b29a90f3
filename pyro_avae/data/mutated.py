"""Images in which some pixels are noise: what a background model is trained on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from pyro_avae.data.split import Batch, ImageData, Split
from pyro_avae.errors import InputError

__all__ = ["MutatedSplit", "mutated_data"]

_RATE = 0.2
_TRAIN_SEED = 1906
_TEST_SEED = 2003


@dataclass(frozen=True, eq=False)
class MutatedSplit(Split):
    """Images each of whose pixels is replaced with a uniform level of 0, 1, ..., 255 with probability ``rate``.

    :meth:`batch` draws which ones and by what afresh; :meth:`fixed_batch` always says the same of an image.

    Args:
        images: uint8 (N, C, H, W).
        labels: as in :class:`~pyro_avae.data.Split`.
        rate: the probability.
        fixed: ``images`` with the pixels replaced that :meth:`fixed_batch` shows.

    Raises:
        InputError: a rate outside [0, 1].

    Example:
        >>> black = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
        >>> split = MutatedSplit(black, {}, rate=0.2, fixed=black)
        >>> x, _ = split.batch(torch.tensor([0]), torch.Generator().manual_seed(0))
        >>> 0.1 < float((x > 0).float().mean()) < 0.3
        True

    Source: Ren et al., *Likelihood Ratios for Out-of-Distribution Detection*, NeurIPS 2019, section 3.
    """

    rate: float
    fixed: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.rate <= 1:
            raise InputError(f"rate: expected a probability in [0, 1], got {self.rate}")

    def augmented(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Images with pixels replaced that ``generator`` draws."""
        return super().augmented(_mutated(pixels, self.rate, generator), generator)

    def batch(self, indices: Tensor, generator: torch.Generator | None) -> Batch:
        """The images at ``indices`` with pixels replaced that ``generator`` draws."""
        _, labels = super().fixed_batch(indices)
        return self.augmented(self.pixels(indices), generator), labels

    def fixed_batch(self, indices: Tensor) -> Batch:
        """The images at ``indices`` with the same pixels replaced at every call."""
        _, labels = super().fixed_batch(indices)
        return super().augmented(self.fixed[indices.to(self.device)]), labels

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        labels = {task: change(values) for task, values in self.labels.items()}
        return replace(self, images=change(self.images), labels=labels, fixed=change(self.fixed))


def mutated_data(data: ImageData, *, rate: float = _RATE) -> ImageData:
    """``NAME`` as ``mutated-NAME``: a fifth of all pixels replaced with noise, as for likelihood ratios.

    Args:
        data: images, grey or in colour; limit the result, not ``data``, for the same fixed images under every limit.
        rate: the share of replaced pixels.

    Example:
        >>> from pyro_avae.data import load_dataset
        >>> mutated_data(load_dataset("color-digits", limit=5)).name
        'mutated-color-digits'
    """
    train, test = (_split(split, rate, seed) for split, seed in ((data.train, _TRAIN_SEED), (data.test, _TEST_SEED)))
    return ImageData(f"mutated-{data.name}", train, test, data.class_names)


def _split(split: Split, rate: float, seed: int) -> MutatedSplit:
    generator = torch.Generator("cpu").manual_seed(seed)
    fixed = _mutated(split.images.cpu(), rate, generator).to(split.device)
    return MutatedSplit(split.images, split.labels, rate=rate, fixed=fixed)


def _mutated(pixels: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    levels = torch.randint(256, pixels.shape, generator=generator, device=pixels.device, dtype=pixels.dtype)
    replaced = torch.rand(pixels.shape, generator=generator, device=pixels.device) < rate
    return torch.where(replaced, levels, pixels)
