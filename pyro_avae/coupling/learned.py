"""An autoregression whose correlation is trained."""

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.coupling.base import Coupling
from pyro_avae.coupling.values import checked_rho

__all__ = ["LearnedRho"]


class LearnedRho(Coupling):
    r"""The AR(1) coupling with a trained correlation, :math:`\rho = c \tanh(r)`, :math:`c = 1 - 2^{-20}`.

    c keeps :math:`1 - \rho^2` positive in float32 however far :math:`r` runs. The bound can have two maxima in
    :math:`\rho` (see :func:`optimal_rho`): training ends in the basin of ``init``.

    Args:
        init: where training starts, one number or one per dimension, in (-1, 1).
        latent_dim: L.
        per_dimension: learn one correlation per latent dimension instead of one for all.
        dtype: of the parameter; by default that of ``init`` where it is a float tensor, else torch's default. A pair
            that is made and then turned ``.double()`` starts where float32 rounded ``init`` to.

    Raises:
        InputError: as :class:`FixedRho`, for ``init``.
    """

    _bound = 1 - 2.0**-20

    def __init__(
        self,
        init: float | Sequence[float] | Tensor = 0.9,
        *,
        latent_dim: int,
        per_dimension: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        values = checked_rho(init, latent_dim, name="init")
        if per_dimension:
            values = values.expand(latent_dim).clone()
        if values.dim() == 1:
            self.latent_dim = latent_dim
        if dtype is None:
            given = init.dtype if isinstance(init, Tensor) else None
            dtype = given if given is not None and given.is_floating_point else torch.get_default_dtype()
        inside = (values.double() / self._bound).clamp(-1 + 1e-12, 1 - 1e-12)
        self.raw = nn.Parameter(torch.atanh(inside).to(dtype))

    @property
    def rho(self) -> Tensor:
        """The current correlation, ``()`` or ``(L,)``."""
        return self._bound * torch.tanh(self.raw)

    @property
    def interaction(self) -> Tensor:
        rho = self.rho
        return rho / ((1 - rho) * (1 + rho))

    def forward(self, z: Tensor) -> TorchDistribution:
        rho = self.rho.to(z.dtype)
        return dist.Normal(rho * z, ((1 - rho) * (1 + rho)).sqrt().expand_as(z)).to_event(1)
