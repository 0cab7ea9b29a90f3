"""Likelihoods: functions from a decoder's output to a Pyro distribution."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_avae.errors import InputError

__all__ = ["Gaussian", "bernoulli", "continuous_bernoulli"]


class Gaussian(nn.Module):
    r"""The likelihood :math:`\mathcal N(\mathrm{out}, \nu I)` with fixed or learned :math:`\nu`.

    Args:
        obs_variance: :math:`\nu`, in squared pixels; where training starts if ``learned``.
        learned: train :math:`\nu`, as the softplus of a free number.

    Raises:
        InputError: ``obs_variance`` is not a positive finite number.

    Example:
        >>> Gaussian(obs_variance=0.25)(torch.zeros(2, 3)).scale[0]
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, *, obs_variance: float = 0.5, learned: bool = False) -> None:
        super().__init__()
        if isinstance(obs_variance, bool) or not isinstance(obs_variance, int | float):
            raise InputError(f"obs_variance: expected a number above 0, got {obs_variance!r}")
        if not (math.isfinite(obs_variance) and obs_variance > 0):
            raise InputError(f"obs_variance: expected a finite number above 0, got {obs_variance}")
        self._fixed = float(obs_variance)
        # inverse of softplus, written so that neither end overflows
        start = obs_variance + math.log(-math.expm1(-obs_variance))
        self.raw = nn.Parameter(torch.tensor(start)) if learned else None

    @property
    def obs_variance(self) -> Tensor | float:
        r""":math:`\nu`, a number if fixed, else a 0-d tensor with gradient."""
        return self._fixed if self.raw is None else softplus(self.raw)

    def forward(self, out: Tensor) -> TorchDistribution:
        if self.raw is None:
            return dist.Normal(out, torch.full_like(out, math.sqrt(self._fixed)))
        return dist.Normal(out, softplus(self.raw).sqrt().to(out.dtype).expand_as(out))


def bernoulli(logits: Tensor) -> TorchDistribution:
    """The likelihood of binary pixels, from logits. Its sample has no derivative: see ``gradient="cut"``."""
    return dist.Bernoulli(logits=logits)


def continuous_bernoulli(logits: Tensor) -> TorchDistribution:
    """The normalised likelihood of pixels in [0, 1], from logits (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845)."""
    return dist.ContinuousBernoulli(logits=logits)
