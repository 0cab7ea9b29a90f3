"""The coupling of the paper: an autoregression with a given correlation."""

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling.base import Coupling
from pyro_avae.coupling.values import checked_rho

__all__ = ["FixedRho"]


class FixedRho(Coupling):
    r"""The AR(1) coupling of the paper, :math:`p_\rho(z'|z) = \mathcal N(\rho z, (1-\rho^2) I)`.

    It is the conditional of the joint :math:`\mathcal N\big(0, \begin{pmatrix} I & \rho I\\ \rho I & I\end{pmatrix}
    \big)` (Cemgil et al. 2020, section 3). ``rho = 0`` makes z' independent of z; negative values are allowed.

    Args:
        rho: the correlation, one number or one per latent dimension ``(L,)``, each in (-1, 1).
        latent_dim: L.

    Raises:
        InputError: a value with ``|rho| >= 1``, NaN or infinite, or a shape that is neither ``()`` nor ``(L,)``.

    Example:
        >>> FixedRho(0.6, latent_dim=2)(torch.ones(1, 2)).base_dist.scale
        tensor([[0.8000, 0.8000]])
    """

    rho: float | Tensor

    def __init__(self, rho: float | Sequence[float] | Tensor, *, latent_dim: int) -> None:
        super().__init__()
        values = checked_rho(rho, latent_dim)
        if values.dim() == 0:
            # A Python number is exact in every dtype that the latent may have.
            self.rho = float(values)
        else:
            self.register_buffer("rho", values)
            self.latent_dim = latent_dim

    @property
    def interaction(self) -> float | Tensor:
        return self.rho / ((1 - self.rho) * (1 + self.rho))

    def forward(self, z: Tensor) -> TorchDistribution:
        if isinstance(self.rho, float):
            scale = torch.full_like(z, math.sqrt((1 - self.rho) * (1 + self.rho)))
            return dist.Normal(self.rho * z, scale).to_event(1)
        # The scale first in the precision of rho: rho = 1 - 1e-9 is 1 in float32, its scale 4.5e-5 is not 0.
        scale = ((1 - self.rho) * (1 + self.rho)).sqrt().to(z.dtype)
        return dist.Normal(self.rho.to(z.dtype) * z, scale.expand_as(z)).to_event(1)
