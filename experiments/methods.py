"""The table of methods: each a (target, guide, ELBO), one line that names its parts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import nn

from pyro_avae.consistency import CR_ELBO
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError, shown_value
from pyro_avae.experiments.couplings import smooth_coupling
from pyro_avae.experiments.parts import MODELS, TRANSFORMATIONS, dynamics, encoder, look_up, target_parts
from pyro_avae.guides import AmortizedGuide, AVAEGuide, SelfSupervisedGuide
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.models import VAE, ExtendedVAE, SelfSupervisedVAE
from pyro_avae.penalties import JacobianL1, Penalty
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import Triple
from pyro_avae.sites import AUX, SMOOTH, Z, aux_sites
from pyro_avae.statistics import Statistics
from pyro_avae.tensor_elbo import TensorELBO
from pyro_avae.views import VIEWS, Gradient, View
from pyro_avae.worst_case import WorstCase

__all__ = ["METHODS", "Method", "build", "builder_of"]


def plain_target(settings: Settings) -> VAE:
    """p(x|z) p(z)."""
    return VAE(**target_parts(settings))


def avae_target(settings: Settings) -> ExtendedVAE:
    """p(x|z) p(z) p_rho(z_aux|z), the last as often as there are views."""
    return _extended(settings, rho=settings.rho)


def se_target(settings: Settings) -> ExtendedVAE:
    """p(x|z) p(z) p(z_smooth|z), the last by the coupling that the settings name."""
    return _extended(settings, rho={SMOOTH: smooth_coupling(settings).rho(settings)})


def se_avae_target(settings: Settings) -> ExtendedVAE:
    """Both: z_aux and z_smooth, independent given z."""
    if settings.coupling == "pairwise":
        raise InputError(
            "coupling: the pairwise prior is another prior of z than the AVAE's; se-avae takes factorised or optimal"
        )
    return _extended(settings, rho={AUX: settings.rho, SMOOTH: smooth_coupling(settings).rho(settings)})


def self_supervised_target(settings: Settings) -> SelfSupervisedVAE:
    """p(z) p_rho(z_aux|z), the decoder held as it is."""
    return _extended(settings, rho=settings.rho, target=SelfSupervisedVAE)


def plain_guide(settings: Settings, model: nn.Module) -> AmortizedGuide:
    """q(z|x), or q(z|x + noise)."""
    return AmortizedGuide(
        encoder(settings), input_noise=settings.input_noise, dynamics=dynamics(settings, cast(VAE, model))
    )


def avae_guide(settings: Settings, model: nn.Module) -> AVAEGuide:
    """q(z|x) p(x_aux|z) q(z_aux|x_aux), the last two as often as there are views."""
    return _guide(settings, model, view=_decoder_view(settings))


def se_guide(settings: Settings, model: nn.Module) -> AVAEGuide:
    """q(z|x) q(z_smooth|x_smooth, z), x_smooth the worst case near x."""
    return _guide(settings, model, view=_worst_case(settings), joint=smooth_coupling(settings).joint)


def se_avae_guide(settings: Settings, model: nn.Module) -> AVAEGuide:
    """Both."""
    return _guide(
        settings,
        model,
        view={AUX: _decoder_view(settings), SMOOTH: _worst_case(settings)},
        joint={AUX: "factorised", SMOOTH: smooth_coupling(settings).joint},
    )


def self_supervised_guide(settings: Settings, model: nn.Module) -> SelfSupervisedGuide:
    """p(z) p(x_aux|z) q(z_aux|x_aux)."""
    return _guide(settings, model, view=_decoder_view(settings), guide=SelfSupervisedGuide)


def bound(settings: Settings) -> AVAE_ELBO:
    """The bound, every term with weight 1."""
    if settings.beta != 1:
        raise InputError(f"beta: expected 1, this method weights no term, got {settings.beta}; use beta-vae")
    return AVAE_ELBO(**_free_bits(settings), **_particles(settings))


def importance_bound(settings: Settings) -> IWAE_ELBO:
    """The bound of several importance samples."""
    return IWAE_ELBO(num_particles=settings.num_particles, dreg=settings.dreg, penalties=_penalties(settings))


def consistent_bound(settings: Settings) -> CR_ELBO:
    """The bound of an image and of a changed one, and the divergence between their posteriors times its weight."""
    return CR_ELBO(
        transformation=look_up(TRANSFORMATIONS, settings.transformation, setting="transformation")(settings),
        weight=settings.consistency_weight,
        weights={} if settings.beta == 1 else {Z: settings.beta},
        **_free_bits(settings),
        **_particles(settings),
    )


def weighted_bound(*branches: str) -> Callable[[Settings], AVAE_ELBO]:
    """The bound with the KL of z times beta, and that of every encoding of the branches times its weight."""

    def make(settings: Settings) -> AVAE_ELBO:
        further = [z_aux for branch in branches for _, z_aux in aux_sites(settings.num_views, branch)]
        weights = {Z: settings.beta, **dict.fromkeys(further, settings.consistency_weight)}
        other = {site: weight for site, weight in weights.items() if weight != 1}
        return AVAE_ELBO(weights=other, **_free_bits(settings), **_particles(settings))

    return make


def _free_bits(settings: Settings) -> dict[str, Any]:
    return {"free_bits": {Z: settings.free_bits} if settings.free_bits else None}


def _particles(settings: Settings) -> dict[str, Any]:
    several = settings.num_particles > 1
    return {"num_particles": settings.num_particles, "vectorize_particles": several, "penalties": _penalties(settings)}


def _penalties(settings: Settings) -> dict[str, Penalty]:
    if not settings.jacobian_l1:
        return {}
    return {"jacobian_l1": JacobianL1(settings.jacobian_l1, step=settings.jacobian_step)}


def _extended(settings: Settings, *, rho: Any, target: Any = ExtendedVAE) -> Any:
    return target(**target_parts(settings), rho=rho, num_views=settings.num_views)


def _guide(settings: Settings, model: nn.Module, *, guide: Any = AVAEGuide, **parts: Any) -> Any:
    return guide(
        encoder(settings),
        cast(ExtendedVAE, model),
        input_noise=settings.input_noise,
        statistics=cast(Statistics, settings.auxiliary_statistics),
        dynamics=dynamics(settings, cast(VAE, model)),
        **parts,
    )


def _decoder_view(settings: Settings) -> View:
    if settings.view == "mean" and not look_up(MODELS, settings.model, setting="model").has_mean:
        raise InputError(f"view: expected sample with --model {settings.model}, whose p(x|z) has no mean, got mean")
    return look_up(VIEWS, settings.view, setting="view")(gradient=cast(Gradient | None, settings.gradient))


def _worst_case(settings: Settings) -> WorstCase:
    return WorstCase(epsilon=settings.epsilon, steps=settings.attack_steps)


@dataclass(frozen=True)
class Method:
    """How a method's target, guide and ELBO are made of settings.

    Attributes:
        target: makes the model.
        guide: makes the guide of the model.
        elbo: makes the ELBO.
        defaults: the settings that it changes the default of.
        unused: the settings that it has no use for.
        needs_data: whether it trains on data; one that does not starts from a trained run.
    """

    target: Callable[[Settings], nn.Module]
    guide: Callable[[Settings, nn.Module], nn.Module]
    elbo: Callable[[Settings], TensorELBO]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    needs_data: bool = True


#: What makes a view of the decoder, one near the data, what any further encoding has, what makes a changed image, and
#: what only the importance-weighted bound has.
_DECODED = ("view", "gradient")
_NEARBY = ("epsilon", "attack_steps", "coupling", "gamma")
_FURTHER = ("rho", "num_views", "consistency_weight", "auxiliary_statistics")
_CHANGED = ("transformation",)
_WEIGHTED = ("dreg",)
#: What needs a decoder that is trained.
_PENALISED = ("jacobian_l1", "jacobian_step")
#: What moves z on after q(z|x).
_MOVED = ("guide", "leapfrog_steps", "tempering")
_PLAIN = (*_DECODED, *_NEARBY, *_FURTHER, *_CHANGED)

METHODS: Mapping[str, Method] = {
    "vae": Method(plain_target, plain_guide, bound, unused=(*_PLAIN, "input_noise", *_WEIGHTED)),
    "iwae": Method(
        plain_target,
        plain_guide,
        importance_bound,
        {"num_particles": 50},
        unused=(*_PLAIN, "input_noise", "beta", "kl_warmup", "free_bits"),
    ),
    "beta-vae": Method(
        plain_target, plain_guide, weighted_bound(), {"beta": 4.0}, unused=(*_PLAIN, "input_noise", *_WEIGHTED)
    ),
    # The noise that a view of the AVAE has at the default observation variance.
    "noise-vae": Method(
        plain_target, plain_guide, weighted_bound(), {"input_noise": math.sqrt(0.5)}, unused=(*_PLAIN, *_WEIGHTED)
    ),
    "cr-vae": Method(
        plain_target,
        plain_guide,
        consistent_bound,
        {"consistency_weight": 0.1},
        unused=(*_DECODED, *_NEARBY, *_WEIGHTED, *_MOVED, "rho", "num_views", "auxiliary_statistics", "input_noise"),
    ),
    "avae": Method(avae_target, avae_guide, weighted_bound(AUX), unused=(*_NEARBY, *_CHANGED, *_WEIGHTED)),
    "avae-mean": Method(
        avae_target,
        avae_guide,
        weighted_bound(AUX),
        {"view": "mean", "gradient": "cut"},
        unused=(*_NEARBY, *_CHANGED, *_WEIGHTED),
    ),
    "avae-ss": Method(
        self_supervised_target,
        self_supervised_guide,
        weighted_bound(AUX),
        # No pass on real data updates the running statistics here: those that came with the run are used.
        {"auxiliary_statistics": "running"},
        unused=(
            *(*_NEARBY, *_CHANGED, *_WEIGHTED, *_PENALISED, *_MOVED),
            *("beta", "free_bits", "input_noise", "limit", "kl_warmup"),
        ),
        needs_data=False,
    ),
    "se": Method(se_target, se_guide, weighted_bound(SMOOTH), unused=(*_DECODED, *_CHANGED, *_WEIGHTED)),
    "se-avae": Method(se_avae_target, se_avae_guide, weighted_bound(AUX, SMOOTH), unused=(*_CHANGED, *_WEIGHTED)),
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
