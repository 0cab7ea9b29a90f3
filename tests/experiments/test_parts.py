"""Architectures and the settings they honour."""

import pytest
from torch import nn

from pyro_avae.errors import InputError
from pyro_avae.experiments.parts import ARCHITECTURES, encoder, observation
from pyro_avae.guides import ConvEncoder, MLPEncoder
from pyro_avae.models import ConvDecoder, MLPDecoder
from pyro_avae.runs.settings import Settings

KINDS = {"mlp": (MLPEncoder, MLPDecoder), **dict.fromkeys(("conv", "conv-small"), (ConvEncoder, ConvDecoder))}


def parts(**settings):
    chosen = Settings(image_shape=(1, 8, 8), latent_dim=3, **settings)
    return encoder(chosen), observation(chosen)[0]


def test_every_architecture_is_tested_here():
    assert set(KINDS) == set(ARCHITECTURES)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("name", "layers"), [("none", ()), ("batch", (nn.BatchNorm1d, nn.BatchNorm2d))])
def test_encoder_and_decoder_honour_the_normalisation(architecture, name, layers):
    made = parts(architecture=architecture, normalization=name)
    for part, kind in zip(made, KINDS[architecture], strict=True):
        assert isinstance(part, kind)
        assert any("Norm" in type(layer).__name__ for layer in part.modules()) == bool(layers)
        assert any(isinstance(layer, layers) for layer in part.modules()) == bool(layers)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_likelihood_decides_what_the_output_goes_through(architecture):
    assert parts(architecture=architecture, likelihood="gaussian")[1].output is not None
    assert parts(architecture=architecture, likelihood="bernoulli")[1].output is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "cnn"}, "architecture: expected one of mlp, conv, conv-small, got 'cnn'"),
        (
            {"normalization": "Batch"},
            "normalization: expected one of none, batch, layer, group, or a Normalization, got",
        ),
        ({"architecture": "conv", "normalization": "x"}, "normalization: expected one of none, batch, layer, group"),
    ],
)
def test_unknown_names_are_refused(settings, message):
    with pytest.raises(InputError, match=rf"\A{message}"):
        parts(**settings)


def test_the_small_convolutions_are_those_of_64x64_images():
    chosen = Settings(image_shape=(1, 64, 64), latent_dim=10, architecture="conv-small")
    down, up = encoder(chosen), observation(chosen)[0]
    convolutions = [[layer for layer in part.convolutions if hasattr(layer, "stride")] for part in (down, up)]
    assert [(c.out_channels, c.kernel_size, c.stride) for c in convolutions[0]] == [
        (channels, (4, 4), (2, 2)) for channels in (32, 32, 64, 64)
    ]
    assert [c.out_channels for c in convolutions[1]] == [64, 32, 32, 1]
    widths = [[layer.out_features for layer in part.layers if isinstance(layer, nn.Linear)] for part in (down, up)]
    assert widths == [[256, 20], [256, 1024]]


def test_channels_are_those_of_the_first_convolution_and_the_decoder_has_half():
    default, narrow = (parts(architecture="conv", **options) for options in ({}, {"channels": 6}))
    assert default[0].convolutions[0].out_channels == 32 and default[1].convolutions[-1].in_channels == 16
    assert narrow[0].convolutions[0].out_channels == 6 and narrow[1].convolutions[-1].in_channels == 3
