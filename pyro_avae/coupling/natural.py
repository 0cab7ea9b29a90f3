"""An autoregression whose correlation is that of the encode-decode chain itself."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling.base import Coupling
from pyro_avae.coupling.values import checked_rho
from pyro_avae.errors import InputError

__all__ = ["NaturalRho"]


class NaturalRho(Coupling):
    r"""The AR(1) coupling with, per dimension, the correlation that the chain z -> x_aux -> z_aux has.

    .. math:: \rho_j = \frac{\mathbb E z_j z'_j}{\sqrt{\mathbb E z_j^2\; \mathbb E z_j'^2}}

    In probabilistic PCA with the exact posterior this is the natural correlation
    :math:`\lambda_j/(\lambda_j+\nu)`, at which the encode-decode kernel is :math:`p_\rho` itself
    (``docs/maths.md``): a dimension is asked to be as consistent as it can be, and one that the decoder does not use
    has :math:`\rho_j = 0` and costs nothing. Elsewhere the moments are estimated: exponential moving averages over the
    pairs that training mode sees, as batch normalisation keeps its statistics. No gradient runs to them.

    The estimate follows the pair, and the pair the estimate. Where the encoder can tell x_aux from data, as it can tell
    noisy decoder samples from clean images, it may answer x_aux with the prior: then rho runs to 0, the consistency
    term vanishes and a plain VAE is left. Watch ``rho`` in the log.

    In eval mode nothing is estimated; :func:`~pyro_avae.linear_gaussian.exact_bound` wants the pair in eval mode.

    Args:
        latent_dim: L.
        init: the correlation before anything was seen.
        momentum: weight of a new batch in the averages, in (0, 1].
        most: the correlations are kept in [-most, most]. The consistency term's weight is 1/(2 (1 - rho^2)), and a
            stronger weight makes the chain more consistent in turn: without an end it can run to 1.

    Raises:
        InputError: ``init`` as :class:`FixedRho`; a momentum or end out of range.

    Example:
        >>> coupling = NaturalRho(latent_dim=1, momentum=1.0)
        >>> z = torch.tensor([[1.0], [-1.0]])
        >>> coupling.observe(z, 0.5 * z + torch.tensor([[0.5], [0.5]]))
        >>> coupling.rho
        tensor([0.7071])
    """

    moments: Tensor

    def __init__(self, *, latent_dim: int, init: float = 0.9, momentum: float = 0.01, most: float = 0.999) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("most", most)):
            if not 0 < value <= 1 or (name == "most" and value == 1):
                raise InputError(f"{name}: expected a number in (0, 1{']' if name == 'momentum' else ')'}, got {value}")
        self.latent_dim, self.momentum, self.most = latent_dim, momentum, most
        start = checked_rho(init, latent_dim, name="init").expand(latent_dim).to(torch.get_default_dtype())
        one = torch.ones_like(start)
        self.register_buffer("moments", torch.stack([start, one, one]))

    @property
    def rho(self) -> Tensor:
        """The current estimate, ``(L,)``."""
        cross, first, second = self.moments
        smallest = torch.finfo(self.moments.dtype).tiny
        return (cross / (first * second).clamp(min=smallest).sqrt()).clamp(-self.most, self.most)

    @property
    def interaction(self) -> Tensor:
        rho = self.rho
        return rho / ((1 - rho) * (1 + rho))

    def observe(self, z: Tensor, z_aux: Tensor) -> None:
        """Take a batch of pairs, ``(..., L)`` each, into the averages; in training mode only."""
        if not self.training:
            return
        z, z_aux = (value.detach().flatten(end_dim=-2).to(self.moments.dtype) for value in (z, z_aux))
        batch = torch.stack([(z * z_aux).mean(0), z.square().mean(0), z_aux.square().mean(0)])
        self.moments.lerp_(batch, self.momentum)

    def forward(self, z: Tensor) -> TorchDistribution:
        rho = self.rho.to(z.dtype)
        return dist.Normal(rho * z, ((1 - rho) * (1 + rho)).sqrt().expand_as(z)).to_event(1)
