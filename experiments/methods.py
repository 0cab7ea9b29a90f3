"""The table of methods: each a (target, guide, ELBO), one line that names its parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from torch import nn

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError, shown_value
from pyro_avae.experiments.parts import encoder, observation
from pyro_avae.guides import AmortizedGuide, AVAEGuide
from pyro_avae.models import VAE, ExtendedVAE
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import Triple
from pyro_avae.sites import Z, aux_sites
from pyro_avae.views import Gradient

__all__ = ["METHODS", "Method", "build", "builder_of"]


def plain_target(settings: Settings) -> VAE:
    """p(x|z) p(z)."""
    decoder, likelihood = observation(settings)
    return VAE(decoder, latent_dim=settings.latent_dim, likelihood=likelihood)


def extended_target(settings: Settings) -> ExtendedVAE:
    """p(x|z) p(z) p_rho(z_aux|z), the last as often as there are views."""
    decoder, likelihood = observation(settings)
    return ExtendedVAE(
        decoder, latent_dim=settings.latent_dim, rho=settings.rho, likelihood=likelihood, num_views=settings.num_views
    )


def plain_guide(settings: Settings, model: nn.Module) -> AmortizedGuide:
    """q(z|x)."""
    return AmortizedGuide(encoder(settings))


def avae_guide(settings: Settings, model: nn.Module) -> AVAEGuide:
    """q(z|x) p(x_aux|z) q(z_aux|x_aux), the last two as often as there are views."""
    target = cast(ExtendedVAE, model)
    return AVAEGuide(encoder(settings), target, view=settings.view, gradient=cast(Gradient | None, settings.gradient))


def bound(settings: Settings) -> AVAE_ELBO:
    """The bound, every term with weight 1."""
    if settings.beta != 1:
        raise InputError(f"beta: expected 1, this method weights no term, got {settings.beta}; use beta-vae")
    return AVAE_ELBO()


def weighted_bound(settings: Settings, *, num_views: Callable[[Settings], int]) -> AVAE_ELBO:
    """The bound with the KL of z, and that of every z_aux, times beta."""
    latents = (Z, *(z_aux for _, z_aux in aux_sites(num_views(settings))))
    return AVAE_ELBO(weights=dict.fromkeys(latents, settings.beta) if settings.beta != 1 else None)


@dataclass(frozen=True)
class Method:
    """How a method's target, guide and ELBO are made of settings.

    Attributes:
        target: makes the model.
        guide: makes the guide of the model.
        elbo: makes the ELBO.
        defaults: the settings that it changes the default of.
        unused: the settings that it has no use for.
    """

    target: Callable[[Settings], nn.Module]
    guide: Callable[[Settings, nn.Module], nn.Module]
    elbo: Callable[[Settings], AVAE_ELBO]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()


#: What a method with no z_aux has no use for.
_OF_THE_CHAIN = ("rho", "view", "gradient", "num_views")

METHODS: Mapping[str, Method] = {
    "vae": Method(plain_target, plain_guide, bound, unused=_OF_THE_CHAIN),
    "beta-vae": Method(
        plain_target,
        plain_guide,
        partial(weighted_bound, num_views=lambda s: 0),
        defaults={"beta": 4.0},
        unused=_OF_THE_CHAIN,
    ),
    "avae": Method(extended_target, avae_guide, partial(weighted_bound, num_views=lambda s: s.num_views)),
}


def build(settings: Settings) -> Triple:
    """The triple of a method in the table, its initial parameters drawn from torch's global generator.

    Raises:
        InputError: no such method, or settings that its parts cannot use.

    Example:
        >>> model, guide, elbo = build(Settings(method="vae", latent_dim=2, hidden=(8,)))
        >>> sum(p.numel() for p in model.parameters())
        21192
    """
    if settings.method not in METHODS:
        raise InputError(_unknown(settings.method))
    method = METHODS[settings.method]
    model = method.target(settings)
    return Triple(model, method.guide(settings, model), method.elbo(settings))


def builder_of(method: str) -> str:
    """The ``module:function`` that builds a method: :func:`build` for the table's names, else the user's own.

    Raises:
        InputError: neither a name in the table nor of the form ``module:function``.
    """
    if method in METHODS:
        return f"{build.__module__}:{build.__name__}"
    if ":" in method:
        return method
    raise InputError(_unknown(method))


def _unknown(name: str) -> str:
    return f"method: expected one of {', '.join(METHODS)} or module:function, got {shown_value(name)}"
