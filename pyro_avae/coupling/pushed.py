"""The coupling of latents whose prior is a flow."""

from typing import Any, Protocol

from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling.base import Coupling

__all__ = ["Flow", "PushedCoupling"]


class Flow(Protocol):
    """An invertible f, such as that of :class:`~pyro_avae.models.FlowPrior`."""

    def __call__(self, base: TorchDistribution) -> TorchDistribution:
        """The law of f of a draw of ``base``."""
        ...

    def base(self, z: Tensor) -> Tensor:
        """The inverse of f at z."""
        ...


class PushedCoupling(Coupling):
    r"""A coupling of :math:`\epsilon = f^{-1}(z)`, pushed through f: :math:`z' = f(\epsilon'),\ \epsilon' \sim
    p_\rho(\cdot\,|f^{-1}(z))`.

    Where the coupling leaves N(0, I) invariant, this one leaves the flow's prior invariant. It is no Gaussian: the KL
    of z' is taken at its sample.

    Args:
        coupling: of the base.
        flow: f. Used, not registered: its parameters are the prior's.
    """

    def __init__(self, coupling: Coupling, flow: Flow) -> None:
        super().__init__()
        self.coupling = coupling
        self.latent_dim = coupling.latent_dim
        self._flow = (flow,)

    @property
    def rho(self) -> Any:
        """The correlation, in the flow's base."""
        return self.coupling.rho

    def forward(self, z: Tensor) -> TorchDistribution:
        flow = self._flow[0]
        return flow(self.coupling(flow.base(z)))

    def observe(self, z: Tensor, z_aux: Tensor) -> None:
        flow = self._flow[0]
        self.coupling.observe(flow.base(z), flow.base(z_aux))
