"""The parts that methods are made of, by the names that settings use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from pyro_avae.convolutions import stage_channels
from pyro_avae.errors import InputError, shown_value
from pyro_avae.guides import ConvEncoder, Hamiltonian, MLPEncoder
from pyro_avae.guides.amortized import Dynamics
from pyro_avae.guides.hamiltonian import Tempering
from pyro_avae.models import (
    VAE,
    ConvDecoder,
    FlowPrior,
    Gaussian,
    LogisticMixture,
    LossyDecoder,
    MLPDecoder,
    bernoulli,
    categorical,
    continuous_bernoulli,
    cross_entropy,
)
from pyro_avae.models.categorical_pixels import LEVELS
from pyro_avae.models.observation import Likelihood
from pyro_avae.runs.settings import Settings
from pyro_avae.transformations import RandomAffine, Transformation

__all__ = [
    "ARCHITECTURES",
    "GUIDES",
    "LIKELIHOODS",
    "MODELS",
    "PRIORS",
    "TRANSFORMATIONS",
    "Architecture",
    "LikelihoodPart",
    "ModelPart",
    "dynamics",
    "encoder",
    "look_up",
    "target_parts",
]

Activation = Callable[[Tensor], Tensor] | None
Part = TypeVar("Part")


@dataclass(frozen=True)
class LikelihoodPart:
    """A likelihood made of settings, and what it asks of the decoder.

    Attributes:
        make: makes the likelihood.
        output: what the decoder's last layer goes through before it (None: nothing).
        outputs: channels of the decoder for each channel of the image.
    """

    make: Callable[[Settings], Likelihood]
    output: Activation
    outputs: int = 1

    def decoded_shape(self, settings: Settings) -> tuple[int, int, int]:
        """The shape of what the decoder makes of one latent."""
        channels, height, width = settings.image_shape
        return channels * self.outputs, height, width


@dataclass(frozen=True)
class Architecture:
    """An encoder and a decoder made of settings; the decoder is told the shape of what it makes, and its output."""

    encoder: Callable[[Settings], nn.Module]
    decoder: Callable[[Settings, tuple[int, int, int], Activation], nn.Module]


LIKELIHOODS: Mapping[str, LikelihoodPart] = {
    "gaussian": LikelihoodPart(lambda s: Gaussian(obs_variance=s.obs_variance), torch.sigmoid),
    "gaussian-learned": LikelihoodPart(lambda s: Gaussian(obs_variance=s.obs_variance, learned=True), torch.sigmoid),
    "bernoulli": LikelihoodPart(lambda s: bernoulli, None),
    "continuous-bernoulli": LikelihoodPart(lambda s: continuous_bernoulli, None),
    "categorical": LikelihoodPart(lambda s: categorical, None, LEVELS),
    "cross-entropy": LikelihoodPart(lambda s: cross_entropy, None),
    "logistic-mixture": LikelihoodPart(lambda s: LogisticMixture(), None, LogisticMixture().outputs),
}


@dataclass(frozen=True)
class ModelPart:
    """How a decoder is made of settings, what the likelihood asks of it, and the likelihood.

    Attributes:
        decoder: makes the decoder.
        has_mean: whether p(x|z) has a mean in closed form.
        likelihood: the likelihood by default, but for binary pixels; None for the data set's.
    """

    decoder: Callable[[Settings, LikelihoodPart, Likelihood], nn.Module]
    has_mean: bool = True
    likelihood: str | None = None


#: Channels between the lossy decoder's trunk and its pixels.
_FEATURES = 4

MODELS: Mapping[str, ModelPart] = {
    "vae": ModelPart(
        lambda s, part, likelihood: _architecture(s).decoder(s, part.decoded_shape(s), part.output),
    ),
    "lossy": ModelPart(
        lambda s, part, likelihood: LossyDecoder(
            _architecture(s).decoder(s, (_FEATURES, *s.image_shape[1:]), None),
            s.image_shape,
            likelihood=likelihood,
            features=_FEATURES,
            kernels=[cast(tuple[int, int], s.window)],
            outputs=part.outputs,
            output=part.output,
        ),
        has_mean=False,
        likelihood="logistic-mixture",
    ),
}

#: What turns N(0, I) into the prior of z; None for nothing.
PRIORS: Mapping[str, Callable[[Settings], FlowPrior | None]] = {
    "gaussian": lambda s: None,
    "flow": lambda s: FlowPrior(s.latent_dim, steps=s.flow_steps, hidden=[s.flow_hidden]),
}

#: Changes of images that leave what they show; binary pixels stay binary.
TRANSFORMATIONS: Mapping[str, Callable[[Settings], Transformation]] = {
    "affine": lambda s: RandomAffine(interpolation=_interpolation(s)),
    "affine-large": lambda s: RandomAffine(
        degrees=30, translate=0.1, scale=(0.75, 1.25), interpolation=_interpolation(s)
    ),
}

_SMALL_CHANNELS = (32, 32, 64, 64)


def _small_stages(settings: Settings) -> int:
    """As many as leave a map of 4 pixels, at most all."""
    return min(len(_SMALL_CHANNELS), len(stage_channels(settings.image_shape, first=1)))


ARCHITECTURES: Mapping[str, Architecture] = {
    "mlp": Architecture(
        encoder=lambda s: MLPEncoder(s.image_shape, s.latent_dim, hidden=s.hidden, normalization=s.normalization),
        decoder=lambda s, shape, output: MLPDecoder(
            s.latent_dim, shape, hidden=s.hidden, normalization=s.normalization, output=output
        ),
    ),
    "conv": Architecture(
        encoder=lambda s: ConvEncoder(
            s.image_shape,
            s.latent_dim,
            channels=stage_channels(s.image_shape, first=s.channels),
            normalization=s.normalization,
        ),
        # Half the encoder's channels, from the smallest map up.
        decoder=lambda s, shape, output: ConvDecoder(
            s.latent_dim,
            shape,
            channels=stage_channels(s.image_shape, first=max(1, s.channels // 2))[::-1],
            normalization=s.normalization,
            output=output,
        ),
    ),
    # Four stages of 32 and 64 channels between fully connected 256s: what 64x64 images are disentangled with (Locatello
    # et al. 2019). Smaller images have fewer stages.
    "conv-small": Architecture(
        encoder=lambda s: ConvEncoder(
            s.image_shape,
            s.latent_dim,
            channels=_SMALL_CHANNELS[: _small_stages(s)],
            hidden=(256,),
            normalization=s.normalization,
        ),
        decoder=lambda s, shape, output: ConvDecoder(
            s.latent_dim,
            shape,
            channels=_SMALL_CHANNELS[: _small_stages(s)][::-1],
            hidden=(256,),
            normalization=s.normalization,
            output=output,
        ),
    ),
}


#: What moves z on after q(z|x); None for nothing.
GUIDES: Mapping[str, Callable[[Settings, VAE], Dynamics | None]] = {
    "gaussian": lambda s, model: None,
    "hamiltonian": lambda s, model: Hamiltonian(
        model, latent_dim=s.latent_dim, steps=s.leapfrog_steps, tempering=cast(Tempering, s.tempering)
    ),
}


def dynamics(settings: Settings, model: VAE) -> Dynamics | None:
    """What moves the guide's z, of the settings.

    Raises:
        InputError: no such guide; a weight on the KL of z, which has no closed form after dynamics.
    """
    made = look_up(GUIDES, settings.guide, setting="guide")(settings, model)
    if made is not None and settings.coupling != "factorised":
        raise InputError(
            f"coupling: expected factorised with --guide {settings.guide}, got {settings.coupling}; no Gaussian z there"
        )
    for name, plain in (("beta", 1), ("free_bits", 0)):
        if made is not None and getattr(settings, name) != plain:
            raise InputError(
                f"{name}: expected {plain} with --guide {settings.guide}, got {getattr(settings, name)}; the KL of z"
                " has no term there"
            )
    return made


def _interpolation(settings: Settings) -> Literal["bilinear", "nearest"]:
    return "nearest" if settings.likelihood == "bernoulli" else "bilinear"


def look_up(table: Mapping[str, Part], name: str, *, setting: str) -> Part:
    """The table's entry; :class:`InputError` that lists the names where there is none."""
    if name not in table:
        raise InputError(f"{setting}: expected one of {', '.join(table)}, got {shown_value(name)}")
    return table[name]


def observation(settings: Settings) -> tuple[nn.Module, Likelihood]:
    """The decoder and the likelihood of the settings."""
    part = look_up(LIKELIHOODS, settings.likelihood, setting="likelihood")
    likelihood = part.make(settings)
    return look_up(MODELS, settings.model, setting="model").decoder(settings, part, likelihood), likelihood


def target_parts(settings: Settings) -> dict[str, Any]:
    """What every target takes: decoder, likelihood, number of latents and prior."""
    decoder, likelihood = observation(settings)
    prior = look_up(PRIORS, settings.prior, setting="prior")(settings)
    return {"decoder": decoder, "likelihood": likelihood, "latent_dim": settings.latent_dim, "prior": prior}


def encoder(settings: Settings) -> nn.Module:
    """The encoder of the settings."""
    return _architecture(settings).encoder(settings)


def _architecture(settings: Settings) -> Architecture:
    return look_up(ARCHITECTURES, settings.architecture, setting="architecture")
