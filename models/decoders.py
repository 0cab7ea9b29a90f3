"""Decoders: from a latent to the parameters of a likelihood."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pyro_avae.network_input import check_input
from pyro_avae.networks import mlp
from pyro_avae.normalization import Normalization

__all__ = ["MLPDecoder"]


class MLPDecoder(nn.Module):
    """The fully connected decoder of the paper: L-200-200-200-200-pixels, ReLU, sigmoid output.

    Args:
        latent_dim: L.
        event_shape: shape of an image, e.g. ``(3, 28, 28)``.
        hidden: widths of the hidden layers.
        normalization: of the hidden layers, before the ReLU: ``"none"``, ``"batch"``, ``"layer"``, ``"group"`` or a
            :class:`~pyro_avae.normalization.Normalization`.
        output: applied to the last layer; ``torch.sigmoid`` for means in [0, 1], ``None`` for logits.

    Raises:
        InputError: a ``normalization`` that does not exist; when run, a tensor of another shape or type.

    Example:
        >>> MLPDecoder(2, (1, 4, 4), hidden=[8])(torch.zeros(3, 2)).shape
        torch.Size([3, 1, 4, 4])
    """

    def __init__(
        self,
        latent_dim: int,
        event_shape: Sequence[int],
        *,
        hidden: Sequence[int] = (200, 200, 200, 200),
        normalization: str | Normalization = "none",
        output: Callable[[Tensor], Tensor] | None = torch.sigmoid,
    ) -> None:
        super().__init__()
        self.latent_dim, self.event_shape = latent_dim, tuple(event_shape)
        self.layers = mlp([latent_dim, *hidden, math.prod(self.event_shape)], normalization=normalization)
        self.output = output

    def forward(self, z: Tensor) -> Tensor:
        """``(B, L)`` to ``(B, *event_shape)``."""
        check_input("z", z, (self.latent_dim,), like=self.layers[0].weight)
        out: Tensor = self.layers(z).unflatten(-1, self.event_shape)
        return out if self.output is None else self.output(out)
