"""The plain target: p(x, z) = p(x|z) N(z; 0, I)."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.infer.util import is_validation_enabled
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_avae.batching import batch_size
from pyro_avae.errors import InputError
from pyro_avae.models.autoregressive import Autoregressive, AutoregressiveDecoder
from pyro_avae.models.flow_prior import FlowPrior
from pyro_avae.models.likelihoods import Gaussian
from pyro_avae.models.observation import Likelihood, Observation
from pyro_avae.parameters import register_parameters
from pyro_avae.sites import PLATE, X, Z
from pyro_avae.views import distribution_mean, family_name

__all__ = ["VAE"]

#: Images whose values are looked at in one go.
_CHECKED = 1024


class VAE(nn.Module):
    r"""The variational autoencoder's model as a Pyro program.

    ::

        z ~ N(0, I)            # site "z", (B, L)
        x ~ p(x | decoder(z))  # site "x", (B, *event), observed

    Args:
        decoder: an ``nn.Module`` that maps ``(B, L)`` to the likelihood's parameters.
        latent_dim: L.
        likelihood: turns the decoder's output into a Pyro distribution; any function or module. By default
            :math:`\mathcal N(\mathrm{out}, \nu I)`, see :class:`~pyro_avae.models.Gaussian`.
        obs_variance: :math:`\nu` of the default likelihood, 0.5 if not given (the authors' code).
        prior: what turns N(0, I) into p(z), such as :class:`~pyro_avae.models.FlowPrior`; nothing by default.

    Raises:
        InputError: both ``likelihood`` and ``obs_variance`` given, ``latent_dim`` below 1, or, when run, data that do
            not fit the decoder.

    Example:
        >>> model = VAE(torch.nn.Linear(2, 5), latent_dim=2, obs_variance=0.5)
        >>> model.decode(torch.zeros(3, 2)).shape
        torch.Size([3, 5])
    """

    def __init__(
        self,
        decoder: nn.Module,
        *,
        latent_dim: int,
        likelihood: Likelihood | None = None,
        obs_variance: float | None = None,
        prior: FlowPrior | None = None,
    ) -> None:
        super().__init__()
        if isinstance(latent_dim, bool) or not isinstance(latent_dim, int) or latent_dim < 1:
            raise InputError(f"latent_dim: expected an integer of at least 1, got {latent_dim!r}")
        if likelihood is not None and obs_variance is not None:
            raise InputError("likelihood and obs_variance: give one of them; the likelihood has its own variance")
        if likelihood is None:
            likelihood = Gaussian(obs_variance=0.5 if obs_variance is None else obs_variance)
        self.latent_dim = latent_dim
        self.prior_scale = 1.0
        self.observation = Observation(decoder, likelihood)
        if prior is not None and prior.latent_dim != latent_dim:
            raise InputError(f"prior: expected one of latent_dim={latent_dim}, got one of {prior.latent_dim}")
        self.flow = prior

    @property
    def decoder(self) -> nn.Module:
        """The decoder, as passed in."""
        return self.observation.decoder

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood, as passed in."""
        return self.observation.likelihood

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        with pyro.plate(PLATE, batch_size(x)):
            return self.generate(x)

    def generate(self, x: Tensor) -> Tensor:
        """The sites of p(x, z), inside the plate; a target that extends this one calls it first."""
        z: Tensor = pyro.sample(Z, self.prior(x))
        likelihood = self.observe(z)
        _check_event(x, likelihood)
        if is_validation_enabled():
            _check_support(x, likelihood)
        pyro.sample(X, likelihood, obs=x)
        return z

    def check_data(self, x: Tensor) -> None:
        """Refuse data of another shape or beyond the likelihood's support, ``(N, *event)`` and all of them at once.

        What training asks before its first step, so that no later one has to look at numbers.

        Raises:
            InputError: such data.
        """
        modes = {part: part.training for part in self.observation.modules()}
        self.observation.eval()  # nothing random, and no running statistic moves
        try:
            with torch.no_grad():
                like = next(self.parameters(), x)
                likelihood = self.observe(like.new_zeros(1, self.latent_dim))
                _check_event(x, likelihood)
                for some in x.split(_CHECKED) if _has_one_support(likelihood) else ():
                    _check_support(some, likelihood)
        finally:
            for part, mode in modes.items():
                part.training = mode

    @property
    def sequential(self) -> bool:
        """Whether a sample of p(x|z) is drawn one pixel after another."""
        return isinstance(self.decoder, AutoregressiveDecoder)

    def prior(self, like: Tensor) -> TorchDistribution:
        """p(z) with event shape ``(L,)``, in the dtype (if floating) and on the device of ``like``.

        N(0, I), or N(0, s^2 I) with s the ``prior_scale`` that the coupling of an extended target asks for; pushed
        through the flow where there is one.
        """
        dtype = like.dtype if like.is_floating_point() else torch.get_default_dtype()
        zeros = like.new_zeros(self.latent_dim, dtype=dtype)
        base = dist.Normal(zeros, torch.full_like(zeros, self.prior_scale)).to_event(1)
        return base if self.flow is None else self.flow(base)

    def observe(self, z: Tensor) -> TorchDistribution:
        """p(x|z) for ``z`` ``(..., L)``, with batch shape ``(...)`` and event shape ``(*event)``."""
        distribution: TorchDistribution = self.observation(z)
        return distribution

    def observe_constant(self, z: Tensor) -> TorchDistribution:
        """p(x|z) with the decoder's and the likelihood's parameters held constant; gradients run to z."""
        return self.observation.held_constant(z)

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), ``(..., *event)``; of an autoregressive decoder a sample, as its mean has no closed form.

        Raises:
            InputError: the likelihood has no mean.
        """
        distribution = self.observe(z)
        if isinstance(distribution, Autoregressive):
            return distribution.sample()
        return distribution_mean(distribution, what="decode")

    def conditional_mean(self, z: Tensor, x: Tensor) -> Tensor:
        r""":math:`\mathbb E[x_i | z, x_{<i}]` for every pixel, of an autoregressive decoder; of any other the mean."""
        distribution = self.observe(z)
        return distribution.conditional_mean(x) if isinstance(distribution, Autoregressive) else self.decode(z)

    def sample(self, num_samples: int, *, noise: bool = False) -> Tensor:
        """Draw z from the prior and return the means of p(x|z), or with ``noise`` samples of it, ``(n, *event)``."""
        like = next(self.parameters(), torch.zeros(()))
        z = self.prior(like).expand((num_samples,)).sample()
        with torch.no_grad():
            return self.observe(z).sample() if noise else self.decode(z)


def _check_event(x: Tensor, likelihood: TorchDistribution) -> None:
    """Broadcasting would otherwise turn a wrong shape into a wrong number."""
    if x.shape[1:] != likelihood.event_shape:
        raise InputError(
            f"x: the decoder makes events of shape {tuple(likelihood.event_shape)}, but x has shape {tuple(x.shape)},"
            f" that is events of shape {tuple(x.shape[1:])}"
        )


def _has_one_support(likelihood: TorchDistribution) -> bool:
    """Whether the support is that of the family, the same for every z."""
    while hasattr(likelihood, "base_dist"):
        likelihood = likelihood.base_dist
    support = getattr(type(likelihood), "support", None)
    return isinstance(support, constraints.Constraint) and not constraints.is_dependent(support)


def _check_support(x: Tensor, likelihood: TorchDistribution) -> None:
    """Say in one line what torch would say in many; costs a look at the data, so only while Pyro validates."""
    support = likelihood.support
    if support is not None and not bool(support.check(x).all()):
        family = family_name(likelihood)
        raise InputError(
            f"x: values outside the support of the {family} likelihood, they lie in [{x.min():.4g}, {x.max():.4g}];"
            " binarise the data, or use a likelihood for them (ContinuousBernoulli or Normal for pixels in [0, 1])"
        )
