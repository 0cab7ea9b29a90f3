"""The extended target of the AVAE: a second latent, tied to the first."""

from collections.abc import Mapping

import pyro
from torch import Tensor, nn

from pyro_avae.batching import batch_size
from pyro_avae.coupling import Coupling, PushedCoupling, RhoLike, as_coupling
from pyro_avae.errors import InputError
from pyro_avae.models.flow_prior import FlowPrior
from pyro_avae.models.observation import Likelihood
from pyro_avae.models.vae import VAE
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import AUX, PLATE, aux_sites

__all__ = ["ExtendedVAE"]


class ExtendedVAE(VAE):
    r"""The extended target :math:`P_\rho = p(x|z;\theta)\, p(z)\, p_\rho(z'|z)\, u(\tilde x)` as a Pyro program.

    ::

        z     ~ N(0, I)                          # site "z"
        x     ~ p(x | decoder(z))                # site "x", observed
        z_aux ~ p_rho(z_aux | z)                 # site "z_aux", by default N(rho z, (1 - rho^2) I)
        z_aux_2 ~ p_rho(z_aux_2 | z_aux)         # with num_views=2, and so on
        z_smooth ~ p_rho(z_smooth | z)           # with a second branch, and so on

    Branches are independent given z. Summing out ``z_aux`` gives the plain VAE back, for every coupling that leaves
    N(0, I) invariant: rho is a choice of the approximation, not of the generative model. The factor
    :math:`u(\tilde x)` is 1 and has no site. With ``rho=0`` the bound is the VAE's minus KL(q(z'|x~) || N(0, I)), not
    the VAE's.

    Args:
        decoder: see :class:`~pyro_avae.models.VAE`.
        latent_dim: L.
        rho: a number in (-1, 1), one per latent dimension, ``"learned"``, ``"learned-per-dimension"``,
            ``"natural"``, or a :class:`~pyro_avae.coupling.Coupling`; see :func:`~pyro_avae.coupling.as_coupling`.
            Or one for each branch by the branch's name, ``{"aux": 0.975, "smooth": 0.9}``. Default 0.975 (the authors'
            ``run.sh``), with the one branch ``aux``.
        likelihood: see :class:`~pyro_avae.models.VAE`.
        obs_variance: see :class:`~pyro_avae.models.VAE`.
        num_views: how many links the chain z -> x_aux -> z_aux -> x_aux_2 -> ... of each branch has; the guide reads
            it.
        prior: see :class:`~pyro_avae.models.VAE`. Given a flow, couplings act in its base, which leaves the prior
            invariant: see :class:`~pyro_avae.coupling.PushedCoupling`.

    Raises:
        InputError: as :class:`~pyro_avae.models.VAE`; a ``rho`` that is not allowed; ``num_views`` below 1; branches
            without a name, or whose couplings want different priors of z.

    References:
        Cemgil, Ghaisas, Dvijotham, Gowal, Kohli: The Autoencoding Variational Autoencoder, NeurIPS 2020,
        arXiv 2012.03715.

    Example:
        >>> model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2, rho=[0.9, 0.5])
        >>> model.coupling.rho
        tensor([0.9000, 0.5000], dtype=torch.float64)
    """

    def __init__(
        self,
        decoder: nn.Module,
        *,
        latent_dim: int,
        rho: RhoLike | Mapping[str, RhoLike] = 0.975,
        likelihood: Likelihood | None = None,
        obs_variance: float | None = None,
        num_views: int = 1,
        prior: FlowPrior | None = None,
    ) -> None:
        super().__init__(decoder, latent_dim=latent_dim, likelihood=likelihood, obs_variance=obs_variance, prior=prior)
        if isinstance(num_views, bool) or not isinstance(num_views, int) or num_views < 1:
            raise InputError(f"num_views: expected an integer of at least 1, got {num_views!r}")
        self.num_views = num_views
        rhos = rho if isinstance(rho, Mapping) else {AUX: rho}
        if not rhos or not all(isinstance(name, str) and name.isidentifier() for name in rhos):
            raise InputError(f"rho: expected at least one branch, its name an identifier, got {list(rhos)}")
        self.branches = tuple(rhos)
        self.coupling, *further = (self._coupling(value) for value in rhos.values())
        for name, coupling in zip(self.branches[1:], further, strict=True):
            self.add_module(f"coupling_{name}", coupling)
        scales = {name: coupling.prior_scale for name, coupling in self.couplings.items()}
        if len(set(scales.values())) > 1:
            raise InputError(f"rho: expected couplings that keep one prior of z, got priors of scale {scales}")
        self.prior_scale = self.coupling.prior_scale

    def _coupling(self, rho: RhoLike) -> Coupling:
        coupling = as_coupling(rho, latent_dim=self.latent_dim)
        if self.flow is None:
            return coupling
        if coupling.prior_scale != 1:
            raise InputError(f"rho: {type(coupling).__name__} sets another prior of z than the flow's; leave one out")
        return PushedCoupling(coupling, self.flow)

    @property
    def couplings(self) -> dict[str, Coupling]:
        """The coupling of each branch, by name; ``coupling`` is the first."""
        first, *further = self.branches
        return {first: self.coupling, **{name: getattr(self, f"coupling_{name}") for name in further}}

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        with pyro.plate(PLATE, batch_size(x)):
            z = self.generate(x)
            self.couple(z)
        return z

    def couple(self, z: Tensor) -> None:
        """The sites of every branch, given ``z`` ``(..., B, L)``, inside the plate."""
        for branch, coupling in self.couplings.items():
            latent = z
            for _, z_aux in aux_sites(self.num_views, branch):
                before, latent = latent, pyro.sample(z_aux, coupling(latent))
                coupling.observe(before, latent)
