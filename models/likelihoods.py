"""Likelihoods: functions from a decoder's output to a Pyro distribution."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints
from torch.nn.functional import softplus

from pyro_avae.errors import InputError

__all__ = ["Gaussian", "bernoulli", "continuous_bernoulli", "cross_entropy"]

#: The smallest learned variance.
_FLOOR = 1e-8


class Gaussian(nn.Module):
    r"""The likelihood :math:`\mathcal N(\mathrm{out}, \nu I)` with fixed or learned :math:`\nu`.

    Args:
        obs_variance: :math:`\nu`, in squared pixels; where training starts if ``learned``.
        learned: train :math:`\nu = \nu_0 + \mathrm{softplus}(r)` by its free number r. The floor :math:`\nu_0` is 1e-8,
            or half of ``obs_variance`` where that is less: however far r runs, the scale is not 0, in float32 either.
        dtype: of r; torch's default if None. A pair that is made and then turned ``.double()`` starts where float32
            rounded ``obs_variance`` to.

    Raises:
        InputError: ``obs_variance`` is not a positive finite number.

    Example:
        >>> Gaussian(obs_variance=0.25)(torch.zeros(2, 3)).scale[0]
        tensor([0.5000, 0.5000, 0.5000])
    """

    def __init__(self, *, obs_variance: float = 0.5, learned: bool = False, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if isinstance(obs_variance, bool) or not isinstance(obs_variance, int | float):
            raise InputError(f"obs_variance: expected a number above 0, got {obs_variance!r}")
        if not (math.isfinite(obs_variance) and obs_variance > 0):
            raise InputError(f"obs_variance: expected a finite number above 0, got {obs_variance}")
        self._fixed = float(obs_variance)
        self._floor = min(_FLOOR, self._fixed / 2)
        above = self._fixed - self._floor
        # inverse of softplus, written so that neither end overflows
        start = above + math.log(-math.expm1(-above))
        self.raw = nn.Parameter(torch.tensor(start, dtype=dtype)) if learned else None

    @property
    def obs_variance(self) -> Tensor | float:
        r""":math:`\nu`, a number if fixed, else a 0-d tensor with gradient."""
        return self._fixed if self.raw is None else self._floor + softplus(self.raw)

    def forward(self, out: Tensor) -> TorchDistribution:
        variance = self.obs_variance
        if not isinstance(variance, Tensor):
            return dist.Normal(out, torch.full_like(out, math.sqrt(variance)))
        return dist.Normal(out, variance.sqrt().to(out.dtype).expand_as(out))


def bernoulli(logits: Tensor) -> TorchDistribution:
    """The likelihood of binary pixels, from logits. Its sample has no derivative: see ``gradient="cut"``."""
    return dist.Bernoulli(logits=logits)


def continuous_bernoulli(logits: Tensor) -> TorchDistribution:
    """The normalised likelihood of pixels in [0, 1], from logits (Loaiza-Ganem & Cunningham 2019, arXiv 1907.06845)."""
    return dist.ContinuousBernoulli(logits=logits)


class CrossEntropy(dist.Bernoulli):  # type: ignore[misc]  # Pyro has no types
    """A Bernoulli whose ``log_prob`` takes grey pixels too; its samples are 0 and 1."""

    support = constraints.unit_interval


def cross_entropy(logits: Tensor) -> TorchDistribution:
    r"""Minus the cross entropy of pixels in [0, 1], :math:`x \log p + (1 - x) \log(1 - p)`, from logits.

    What much of the literature on disentanglement trains with. Of binary pixels it is the Bernoulli's log-probability.
    Of grey ones it is no log-density: the normaliser is left out, which is below 1 and depends on the decoder's output
    (see :func:`continuous_bernoulli`). Differences of two such "likelihoods" are not differences of likelihoods.

    Example:
        >>> round(float(cross_entropy(torch.tensor(0.0)).log_prob(torch.tensor(0.3))), 4)  # -log 2
        -0.6931
    """
    return CrossEntropy(logits=logits)
