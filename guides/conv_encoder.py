"""The convolutional encoder."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyro_avae.convolutions import checked_image_shape, halving_stages, stage_channels, stage_sides
from pyro_avae.guides.gaussian_head import gaussian_head
from pyro_avae.network_input import check_input
from pyro_avae.networks import mlp
from pyro_avae.normalization import Normalization, as_normalization

__all__ = ["ConvEncoder"]


class ConvEncoder(nn.Module):
    r"""Strided 4x4 convolutions, each halving the image, then fully connected layers; location and log variance.

    The log variance is bent to stay within +-20, see :class:`~pyro_avae.guides.MLPEncoder`. Weights start as a normal
    cut at two standard deviations of ``sqrt(2 / fan_in)`` in the convolutions (He et al. 2015, for ReLU) and of
    ``1 / sqrt(fan_in)`` in the other layers, as those of the MLPs do; biases at zero.

    Args:
        event_shape: ``(C, H, W)``, H and W multiples of 4.
        latent_dim: L.
        channels: after each convolution; by default 32, 64, ... up to 256 until the map is 3 to 5 pixels wide:
            ``(32, 64, 128)`` for 28x28, ``(32, 64, 128, 256)`` for 64x64.
        hidden: widths of the fully connected layers between convolutions and output.
        normalization: of convolutions and hidden layers, before the ReLU: ``"none"``, ``"batch"``, ``"layer"``,
            ``"group"`` or a :class:`~pyro_avae.normalization.Normalization`.

    Raises:
        InputError: a shape that is none of an image or whose sides are not multiples of 4; more stages than halvings;
            a ``normalization`` that does not exist; when run, a tensor of another shape or type.

    Example:
        >>> loc, scale = ConvEncoder((3, 28, 28), 2)(torch.zeros(5, 3, 28, 28))
        >>> loc.shape, scale[0]
        (torch.Size([5, 2]), tensor([1., 1.], grad_fn=<SelectBackward0>))
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        *,
        channels: Sequence[int] | None = None,
        hidden: Sequence[int] = (256,),
        normalization: str | Normalization = "none",
    ) -> None:
        super().__init__()
        self.event_shape = shape = checked_image_shape(event_shape)
        normalized = as_normalization(normalization)
        channels = stage_channels(shape, first=32) if channels is None else tuple(channels)
        smallest = stage_sides(shape, len(channels))[-1]
        self.convolutions = halving_stages([shape[0], *channels], normalized)
        self.layers = mlp([channels[-1] * math.prod(smallest), *hidden, 2 * latent_dim], normalization=normalized)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` to ``(loc, scale)``, both ``(B, L)``; scale is a standard deviation."""
        check_input("x", x, self.event_shape, like=self.layers[0].weight)
        return gaussian_head(self.layers(self.convolutions(x).flatten(1)))
