"""The convolutional decoder: shapes, its formula, shifts, and that it is the smaller half of the pair."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyro_avae.errors import InputError
from pyro_avae.guides import ConvEncoder
from pyro_avae.models import ConvDecoder
from pyro_avae.normalization import NORMALIZATIONS

F64 = torch.float64


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 64, 64)])
@pytest.mark.parametrize("latent_dim", [16, 64, 128])
def test_the_decoder_has_at_most_a_third_of_the_encoders_parameters(shape, latent_dim, name):
    decoder, encoder = ConvDecoder(latent_dim, shape, normalization=name), ConvEncoder(shape, latent_dim)
    assert 3 * size(decoder) <= size(encoder)


@pytest.mark.parametrize(
    ("shape", "smallest"),
    [
        ((3, 28, 28), (64, 3, 3)),
        ((3, 64, 64), (128, 4, 4)),
        ((1, 32, 32), (64, 4, 4)),
        ((1, 12, 20), (32, 3, 5)),
        ((2, 4, 4), (16, 2, 2)),
    ],
)
def test_shapes(shape, smallest):
    decoder = ConvDecoder(5, shape)
    assert decoder.smallest == smallest
    out = decoder(torch.randn(2, 5))
    assert out.shape == (2, *shape)
    assert bool(((out > 0) & (out < 1)).all())


def test_the_decoder_by_hand():
    decoder = ConvDecoder(2, (1, 8, 8), channels=[4, 3], hidden=[5]).double()
    z = torch.randn(7, 2, dtype=F64)
    linear, last = (part for part in decoder.modules() if isinstance(part, nn.Linear))
    first, second = (part for part in decoder.modules() if isinstance(part, nn.ConvTranspose2d))
    maps = (torch.relu(z @ linear.weight.T + linear.bias) @ last.weight.T + last.bias).reshape(7, 4, 2, 2)
    maps = F.conv_transpose2d(torch.relu(maps), first.weight, first.bias, stride=2, padding=1)
    out = F.conv_transpose2d(torch.relu(maps), second.weight, second.bias, stride=2, padding=1)
    torch.testing.assert_close(decoder(z), torch.sigmoid(out), rtol=1e-12, atol=1e-12)
    decoder.output = None
    torch.testing.assert_close(decoder(z), out, rtol=1e-12, atol=1e-12)


def test_every_pixel_is_reached():
    """Also where a side becomes odd: 3, 7, 14, 28."""
    decoder = ConvDecoder(2, (1, 28, 28), output=None)
    assert bool((decoder(10 * torch.randn(8, 2)).std(0) > 0).all())


def test_a_shifted_map_gives_a_shifted_image():
    """Two stages: a shift of one in the smallest map is one of four pixels."""
    convolutions = ConvDecoder(2, (1, 32, 32), channels=[4, 4]).double().convolutions
    maps = torch.zeros(1, 4, 8, 8, dtype=F64)
    maps[..., 3:5, 3:5] = torch.rand(4, 2, 2, dtype=F64)
    image = convolutions(maps)
    assert float(image.detach().abs().max()) > 0
    for dim in (2, 3):
        torch.testing.assert_close(convolutions(maps.roll(1, dim)), image.roll(4, dim), rtol=1e-12, atol=1e-12)


def test_weights_start_with_the_gain_of_a_relu_but_for_the_last():
    """A transposed 4x4 kernel of stride 2 reaches each output with 2x2 of its pixels; 5 standard errors."""
    decoder = ConvDecoder(2, (3, 28, 28))
    convs = [part for part in decoder.modules() if isinstance(part, nn.ConvTranspose2d)]
    for conv in convs:
        expected = 0.7737 * (1 if conv is convs[-1] else 2) / (conv.in_channels * 4)
        weight = conv.weight.detach()
        assert abs(float(weight.var()) - expected) < 5 * expected * math.sqrt(2 / weight.numel())
        assert bool((conv.bias == 0).all())


@pytest.mark.parametrize("shape", [(3, 30, 28), (3, 28, 27), (28, 28), (1, 2, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"\Aevent_shape: expected \(channels, height, width\), [^\n]*multiples of 4"):
        ConvDecoder(2, shape)


@pytest.mark.parametrize("channels", [(), (4, 4, 4, 4)])
def test_too_many_stages_are_refused(channels):
    with pytest.raises(InputError, match=r"\Achannels: expected 1 to 3 stages, as each halves the 8x8 pixels, got"):
        ConvDecoder(2, (1, 8, 8), channels=channels)
