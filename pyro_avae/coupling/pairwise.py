"""The pairwise prior of the smooth encoder."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling.base import Coupling
from pyro_avae.errors import InputError

__all__ = ["PairwisePrior"]


class PairwisePrior(Coupling):
    r"""The coupling of *Smooth Encoders*: :math:`p_\gamma(z,z') \propto e^{-\|z\|^2/2-\|z'\|^2/2-\gamma\|z-z'\|^2/2}`.

    As a program, :math:`z \sim \mathcal N\big(0, \tfrac{1+\gamma}{1+2\gamma} I\big)` and
    :math:`z'|z \sim \mathcal N\big(\tfrac{\gamma}{1+\gamma} z, \tfrac{1}{1+\gamma} I\big)`, both normalised. Its
    correlation is :math:`\gamma/(1+\gamma)`. Unlike :class:`FixedRho` it changes the prior of z, and with it the
    generative model: a target with this coupling draws z from the narrower one.

    Args:
        gamma: the strength, above 0.

    Raises:
        InputError: ``gamma`` is not a finite number above 0.

    Example:
        >>> coupling = PairwisePrior(1.0)
        >>> round(coupling.prior_scale**2, 4), coupling(torch.ones(1, 2)).base_dist.loc
        (0.6667, tensor([[0.5000, 0.5000]]))

    Source: Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020; the normaliser is
        derived.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 < gamma < math.inf:
            raise InputError(f"gamma: expected a finite number above 0, got {gamma!r}")
        self.gamma = float(gamma)
        self.prior_scale = math.sqrt((1 + self.gamma) / (1 + 2 * self.gamma))

    @property
    def rho(self) -> float:
        """The correlation of z and z'."""
        return self.gamma / (1 + self.gamma)

    @property
    def interaction(self) -> float:
        """Gamma."""
        return self.gamma

    def forward(self, z: Tensor) -> TorchDistribution:
        scale = torch.full_like(z, math.sqrt(1 / (1 + self.gamma)))
        return dist.Normal(self.rho * z, scale).to_event(1)
