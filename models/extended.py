"""The extended target of the AVAE: a second latent, tied to the first."""

import pyro
from torch import Tensor, nn

from pyro_avae.coupling import RhoLike, as_coupling
from pyro_avae.errors import InputError
from pyro_avae.models.observation import Likelihood
from pyro_avae.models.vae import VAE
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, aux_sites

__all__ = ["ExtendedVAE"]


class ExtendedVAE(VAE):
    r"""The extended target :math:`P_\rho = p(x|z;\theta)\, p(z)\, p_\rho(z'|z)\, u(\tilde x)` as a Pyro program.

    ::

        z     ~ N(0, I)                          # site "z"
        x     ~ p(x | decoder(z))                # site "x", observed
        z_aux ~ p_rho(z_aux | z)                 # site "z_aux", by default N(rho z, (1 - rho^2) I)
        z_aux_2 ~ p_rho(z_aux_2 | z_aux)         # with num_views=2, and so on

    Summing out ``z_aux`` gives the plain VAE back, for every coupling that leaves N(0, I) invariant: rho is a choice
    of the approximation, not of the generative model. The factor :math:`u(\tilde x)` is 1 and has no site. With
    ``rho=0`` the bound is the VAE's minus KL(q(z'|x~) || N(0, I)), not the VAE's.

    Args:
        decoder: see :class:`~pyro_avae.models.VAE`.
        latent_dim: L.
        rho: a number in (-1, 1), one per latent dimension, ``"learned"``, or a
            :class:`~pyro_avae.coupling.Coupling`. Default 0.975 (the authors' ``run.sh``).
        likelihood: see :class:`~pyro_avae.models.VAE`.
        obs_variance: see :class:`~pyro_avae.models.VAE`.
        num_views: how many decoder samples the chain z -> x_aux -> z_aux -> x_aux_2 -> ... has; the guide reads it.

    Raises:
        InputError: as :class:`~pyro_avae.models.VAE`; a ``rho`` that is not allowed; ``num_views`` below 1.

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
        rho: RhoLike = 0.975,
        likelihood: Likelihood | None = None,
        obs_variance: float | None = None,
        num_views: int = 1,
    ) -> None:
        super().__init__(decoder, latent_dim=latent_dim, likelihood=likelihood, obs_variance=obs_variance)
        if isinstance(num_views, bool) or not isinstance(num_views, int) or num_views < 1:
            raise InputError(f"num_views: expected an integer of at least 1, got {num_views!r}")
        self.coupling = as_coupling(rho, latent_dim=latent_dim)
        self.num_views = num_views

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        with pyro.plate(PLATE, len(x)):
            z = latent = self.generate(x)
            for _, z_aux in aux_sites(self.num_views):
                latent = pyro.sample(z_aux, self.coupling(latent))
        return z
