"""The convolutional decoder."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_avae.convolutions import checked_image_shape, doubling_stages, stage_channels, stage_sides
from pyro_avae.network_input import check_input
from pyro_avae.networks import mlp
from pyro_avae.normalization import Normalization, as_normalization

__all__ = ["ConvDecoder"]


class ConvDecoder(nn.Module):
    """Fully connected layers, then transposed 4x4 convolutions, each doubling the image; sigmoid output.

    The mirror image of :class:`~pyro_avae.guides.ConvEncoder` with half its channels and half its hidden width: about
    a quarter of its parameters. Weights start as there.

    Args:
        latent_dim: L.
        event_shape: ``(C, H, W)``, H and W multiples of 4.
        channels: of the smallest map and after each convolution but the last; by default ``(64, 32, 16)`` for 28x28
            and ``(128, 64, 32, 16)`` for 64x64.
        hidden: widths of the fully connected layers between latent and smallest map.
        normalization: of hidden layers and convolutions, before the ReLU: ``"none"``, ``"batch"``, ``"layer"``,
            ``"group"`` or a :class:`~pyro_avae.normalization.Normalization`.
        output: applied to the last layer; ``torch.sigmoid`` for means in [0, 1], ``None`` for logits.

    Raises:
        InputError: a shape that is none of an image or whose sides are not multiples of 4; more stages than halvings;
            a ``normalization`` that does not exist; when run, a tensor of another shape or type.

    Example:
        >>> ConvDecoder(2, (3, 28, 28))(torch.zeros(5, 2)).shape
        torch.Size([5, 3, 28, 28])
    """

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        *,
        channels: Sequence[int] | None = None,
        hidden: Sequence[int] = (128,),
        normalization: str | Normalization = "none",
        output: Callable[[Tensor], Tensor] | None = torch.sigmoid,
    ) -> None:
        super().__init__()
        shape, normalized = checked_image_shape(event_shape), as_normalization(normalization)
        channels = stage_channels(shape, first=16)[::-1] if channels is None else tuple(channels)
        sides = stage_sides(shape, len(channels))[::-1]
        self.latent_dim = latent_dim
        self.smallest = (channels[0], *sides[0])
        self.layers = mlp([latent_dim, *hidden, math.prod(self.smallest)], normalization=normalized)
        self.convolutions = doubling_stages([*channels, shape[0]], sides, normalized)
        self.output = output

    def forward(self, z: Tensor) -> Tensor:
        """``(B, L)`` to ``(B, C, H, W)``."""
        check_input("z", z, (self.latent_dim,), like=self.layers[0].weight)
        out: Tensor = self.convolutions(self.layers(z).unflatten(-1, self.smallest))
        return out if self.output is None else self.output(out)
