"""Three discs on white, drawn on the device from six numbers: images whose factors of variation are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from pyro_avae.data.split import Batch, ImageData, Split
from pyro_avae.errors import InputError

__all__ = ["THREE_DOTS", "ThreeDots", "ThreeDotsSplit", "three_dots_data"]

_SIDE = 64
_RADIUS = 0.08
_VALUES = 64
_DOTS = 3

_TRAIN, _TRAIN_SEED = 500_000, 2106
_TEST, _TEST_SEED = 10_000, 2923


class ThreeDots:
    """The generator: (x, y) of each disc, six integers in 0..63, to an image.

    The value k puts a centre at k/63 of the image's side, so that discs at the border are cut; discs may cover each
    other. A pixel is grey by what of it a disc covers, here by the distance of its centre from the rim: within 0.08 of
    the authors' average over 10x10 points a pixel.

    Example:
        >>> dots = ThreeDots()
        >>> images = dots.render(torch.tensor([[0, 0, 32, 32, 32, 32], [63, 0, 0, 63, 63, 63]]))
        >>> images.shape, images[0, 0, 0, 0].item(), images[0, 0, 0, 63].item(), images[1, 0, 0, 0].item()
        (torch.Size([2, 1, 64, 64]), 0.0, 1.0, 1.0)

    Source: Rhodes and Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*,
        NeurIPS 2021 (arXiv 2106.02923); after Zhao et al., *Bias and Generalization in Deep Generative Models*, 2018.
    """

    #: How many values each factor has: x and y of the first disc, of the second, of the third.
    num_values = (_VALUES,) * (2 * _DOTS)

    def render(self, factors: Tensor) -> Tensor:
        """The images of factors.

        Args:
            factors: integers of any type, ``(N, 6)``, in 0..63: not checked, as that would make a device wait.

        Returns:
            float32 ``(N, 1, 64, 64)`` in [0, 1], on the device of ``factors``; 0 within a disc.

        Raises:
            InputError: another shape.
        """
        if factors.dim() != 2 or factors.shape[1] != len(self.num_values):
            raise InputError(f"factors: expected shape (N, {len(self.num_values)}), got {tuple(factors.shape)}")
        centres = factors.to(torch.float32) * (_SIDE / (_VALUES - 1))
        pixels = torch.arange(_SIDE, device=factors.device, dtype=torch.float32) + 0.5
        squares = (pixels - centres.unflatten(1, (_DOTS, 2)).unsqueeze(-1)).square()  # (N, disc, x or y, pixel)
        distances = (squares[:, :, 1, :, None] + squares[:, :, 0, None, :]).amin(1, keepdim=True).sqrt()
        return (distances - _RADIUS * _SIDE + 0.5).clamp(0.0, 1.0)


#: The one there is: it has no state.
THREE_DOTS = ThreeDots()


class ThreeDotsSplit(Split):
    """Images kept as their factors, uint8 ``(N, 6, 1, 1)``, and drawn when they are asked for.

    Example:
        >>> split = ThreeDotsSplit.sample(5, seed=0)
        >>> split.shape, len(split), split.images.shape, split.fixed_batch(torch.tensor([3]))[0].shape
        ((1, 64, 64), 5, torch.Size([5, 6, 1, 1]), torch.Size([1, 1, 64, 64]))
    """

    @classmethod
    def sample(cls, count: int, *, seed: int) -> Self:
        """Uniform factors, drawn on the CPU: the same on every device."""
        generator = torch.Generator("cpu").manual_seed(seed)
        factors = torch.randint(_VALUES, (count, len(ThreeDots.num_values)), generator=generator)
        return cls(factors.to(torch.uint8)[:, :, None, None], {})

    @property
    def shape(self) -> tuple[int, int, int]:
        """(1, 64, 64)."""
        return 1, _SIDE, _SIDE

    def augmented(self, pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The images of the factors; nothing in them is random."""
        return THREE_DOTS.render(pixels.flatten(1))

    def fixed_batch(self, indices: Tensor) -> Batch:
        """The images at ``indices``."""
        return self.augmented(self.pixels(indices)), {}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        return replace(self, images=change(self.images))


def three_dots_data() -> ImageData:
    """500,000 training and 10,000 test images of :class:`ThreeDots`, always the same, without labels.

    Example:
        >>> data = three_dots_data()
        >>> data.shape, len(data.train), len(data.test), data.tasks
        ((1, 64, 64), 500000, 10000, {})
    """
    return ImageData(
        "three-dots",
        ThreeDotsSplit.sample(_TRAIN, seed=_TRAIN_SEED),
        ThreeDotsSplit.sample(_TEST, seed=_TEST_SEED),
        {},
    )
