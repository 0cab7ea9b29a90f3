r"""What a coupling is: how an encoding :math:`z'` is tied to :math:`z`."""

from abc import ABC, abstractmethod

from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.errors import InputError

__all__ = ["Coupling"]


class Coupling(nn.Module, ABC):
    r"""A conditional :math:`p(z'|z)` that leaves the prior of z, :math:`\mathcal N(0, s^2 I)`, invariant.

    Attributes:
        latent_dim: the L that it fits, or None where it fits any; :func:`as_coupling` checks it.
        prior_scale: s; 1 but for :class:`PairwisePrior`.
    """

    latent_dim: int | None = None
    prior_scale: float = 1.0

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """Return the distribution of z' given ``z`` ``(..., L)``; its event shape is ``(L,)``."""

    @property
    def interaction(self) -> float | Tensor:
        r"""The coefficient of :math:`z_j z'_j` in :math:`\log p(z, z')`, one for all dimensions or ``(L,)``.

        It is all that the best Gaussian coupling of two encodings depends on, see
        :class:`~pyro_avae.joint.OptimalJoint`.

        Raises:
            InputError: the coupling ties different dimensions to each other.
        """
        raise InputError(
            f"coupling: the optimal joint of two encodings needs one correlation per dimension, which"
            f" {type(self).__name__} has not; use FixedRho, LearnedRho, NaturalRho or PairwisePrior"
        )

    def observe(self, z: Tensor, z_aux: Tensor) -> None:
        """Told of each pair ``(..., L)`` that is coupled in training; :class:`NaturalRho` estimates from it."""
