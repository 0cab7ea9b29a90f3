"""Encoders: from data to the location and scale of a Gaussian over latents."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_avae.guides.gaussian_head import gaussian_head
from pyro_avae.network_input import check_input
from pyro_avae.networks import mlp
from pyro_avae.normalization import Normalization

__all__ = ["LinearEncoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """The fully connected encoder of the paper: pixels-200-200-200-200-2L, ReLU; location and log variance.

    The log variance is bent to stay within +-20 (identity to 1 % below 3.5), so that no input makes the scale overflow.

    Args:
        event_shape: shape of an image, e.g. ``(3, 28, 28)``.
        latent_dim: L.
        hidden: widths of the hidden layers.
        normalization: of the hidden layers, before the ReLU: ``"none"``, ``"batch"``, ``"layer"``, ``"group"`` or a
            :class:`~pyro_avae.normalization.Normalization`.

    Raises:
        InputError: a ``normalization`` that does not exist; when run, a tensor of another shape or type.

    Example:
        >>> loc, scale = MLPEncoder((1, 4, 4), 2, hidden=[8])(torch.zeros(3, 1, 4, 4))
        >>> loc.shape, scale[0]
        (torch.Size([3, 2]), tensor([1., 1.], grad_fn=<SelectBackward0>))
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        latent_dim: int,
        *,
        hidden: Sequence[int] = (200, 200, 200, 200),
        normalization: str | Normalization = "none",
    ) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)
        self.layers = mlp([math.prod(event_shape), *hidden, 2 * latent_dim], normalization=normalization)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, *event)`` to ``(loc, scale)``, both ``(B, L)``; scale is a standard deviation."""
        check_input("x", x, self.event_shape, like=self.layers[0].weight)
        return gaussian_head(self.layers(x.flatten(1)))


class LinearEncoder(nn.Module):
    r"""The linear-Gaussian encoder :math:`q(z|x) = \mathcal N(Kx + b, S)`, S the same for every x.

    Args:
        data_dim: D; x is ``(B, D)``.
        latent_dim: L.
        full_covariance: S is a full matrix, given out as its Cholesky factor ``(B, L, L)``; else diagonal, given out as
            standard deviations ``(B, L)``.

    Example:
        >>> encoder = LinearEncoder.from_affine(torch.ones(1, 2), torch.zeros(1), torch.tensor([[0.5]]))
        >>> encoder(torch.ones(1, 2))
        (tensor([[2.]], grad_fn=<AddmmBackward0>), tensor([[[0.5000]]], grad_fn=<ExpandBackward0>))
    """

    def __init__(self, data_dim: int, latent_dim: int, *, full_covariance: bool = False) -> None:
        super().__init__()
        self.linear = nn.Linear(data_dim, latent_dim)
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))
        self.lower = nn.Parameter(torch.zeros(latent_dim, latent_dim)) if full_covariance else None

    @classmethod
    def from_affine(cls, gain: Tensor, bias: Tensor, scale_tril: Tensor) -> "LinearEncoder":
        """The encoder N(gain x + bias, S) of given ``gain`` ``(L, D)``, ``bias`` ``(L,)`` and Cholesky factor of S."""
        encoder = cls(gain.shape[1], gain.shape[0], full_covariance=True).to(gain)
        with torch.no_grad():
            encoder.linear.weight.copy_(gain)
            encoder.linear.bias.copy_(bias)
            encoder.log_scale.copy_(scale_tril.diagonal().log())
            if encoder.lower is not None:
                encoder.lower.copy_(scale_tril.tril(-1))
        return encoder

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, D)`` to loc ``(B, L)`` and scale ``(B, L)`` or ``(B, L, L)``."""
        check_input("x", x, (self.linear.in_features,), like=self.linear.weight)
        loc = self.linear(x)
        scale = self.log_scale.exp()
        if self.lower is not None:
            scale = self.lower.tril(-1) + scale.diag()
        return loc, scale.expand(len(x), *scale.shape)
