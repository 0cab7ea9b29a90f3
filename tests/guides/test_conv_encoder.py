"""The convolutional encoder: shapes, its formula, shifts, gradients, particles."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, ConvEncoder
from pyro_avae.models import VAE, ConvDecoder
from pyro_avae.normalization import NORMALIZATIONS

F64 = torch.float64


@pytest.mark.parametrize(
    ("shape", "maps"),
    [
        ((3, 28, 28), (128, 3, 3)),
        ((3, 64, 64), (256, 4, 4)),
        ((1, 32, 32), (128, 4, 4)),
        ((1, 12, 20), (64, 3, 5)),
        ((1, 8, 8), (32, 4, 4)),
        ((2, 4, 4), (32, 2, 2)),
    ],
)
def test_shapes(shape, maps):
    encoder = ConvEncoder(shape, 5)
    x = torch.rand(2, *shape)
    assert encoder.convolutions(x).shape == (2, *maps)
    loc, scale = encoder(x)
    assert loc.shape == scale.shape == (2, 5)
    assert bool((scale > 0).all())


def test_the_encoder_by_hand():
    encoder = ConvEncoder((1, 8, 8), 2, channels=[3, 4], hidden=[5]).double()
    x = torch.rand(7, 1, 8, 8, dtype=F64)
    first, second = (part for part in encoder.modules() if isinstance(part, nn.Conv2d))
    linear, last = (part for part in encoder.modules() if isinstance(part, nn.Linear))
    hidden = torch.relu(F.conv2d(x, first.weight, first.bias, stride=2, padding=1))
    hidden = torch.relu(F.conv2d(hidden, second.weight, second.bias, stride=2, padding=1)).reshape(7, 16)
    out = torch.relu(hidden @ linear.weight.T + linear.bias) @ last.weight.T + last.bias
    loc, scale = encoder(x)
    torch.testing.assert_close(loc, out[:, :2], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scale, (10 * torch.tanh(out[:, 2:] / 20)).exp(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1e3, 1e18])
def test_no_input_makes_the_scale_overflow_or_vanish(size):
    _, scale = ConvEncoder((1, 8, 8), 2)(size * torch.randn(20, 1, 8, 8))
    bound = math.exp(10) * (1 + 10 * torch.finfo(torch.float32).eps)
    assert bool(((scale <= bound) & (scale >= 1 / bound)).all())


def test_every_pixel_counts():
    """Also where an odd side is halved: 28, 14, 7, 3."""
    x = torch.rand(4, 1, 28, 28, requires_grad=True)
    ConvEncoder((1, 28, 28), 3)(x)[0].square().sum().backward()
    assert bool((x.grad.abs().sum((0, 1)) > 0).all())


def test_a_shifted_pattern_gives_shifted_maps():
    """Two stages: a shift of four pixels is one of the map. No bias at the start, so that black stays black."""
    convolutions = ConvEncoder((1, 32, 32), 2, channels=[4, 4]).double().convolutions
    x = torch.zeros(1, 1, 32, 32, dtype=F64)
    x[..., 12:17, 11:18] = torch.rand(5, 7, dtype=F64)
    maps = convolutions(x)
    assert float(maps.detach().abs().max()) > 0
    for dim in (2, 3):
        # The sums of a convolution may be taken in another order elsewhere in the image.
        torch.testing.assert_close(convolutions(x.roll(4, dim)), maps.roll(1, dim), rtol=1e-12, atol=1e-12)
        assert float((convolutions(x.roll(2, dim)) - maps.roll(1, dim)).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_gradients_reach_every_parameter_of_both(name):
    shape = (2, 8, 8)
    encoder = ConvEncoder(shape, 3, channels=[8, 8], hidden=[8], normalization=name)
    decoder = ConvDecoder(3, shape, channels=[8, 8], hidden=[8], normalization=name)
    model, guide = VAE(decoder, latent_dim=3), AmortizedGuide(encoder)
    AVAE_ELBO()(model, guide)(torch.rand(16, *shape)).backward()
    for part in (encoder, decoder):
        for label, parameter in part.named_parameters():
            assert parameter.grad is not None, label
            # Rounding alone leaves some 1e-7 of the sum over 2048 pixels.
            assert float(parameter.grad.abs().max()) > 1e-3, label


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_particles_in_front(name):
    shape = (2, 8, 8)
    guide = AmortizedGuide(ConvEncoder(shape, 3, channels=[8, 8], hidden=[8], normalization=name)).eval()
    model = VAE(ConvDecoder(3, shape, channels=[8, 8], hidden=[8], normalization=name), latent_dim=3).eval()
    x = torch.rand(5, 4, *shape)
    loc, scale = guide.encode(x, event_dim=3)
    assert loc.shape == scale.shape == (5, 4, 3)
    images = model.decode(loc)
    assert images.shape == (5, 4, *shape)
    for row in range(5):
        torch.testing.assert_close(loc[row], guide.encode(x[row])[0])
        torch.testing.assert_close(images[row], model.decode(loc[row]))
    loss = AVAE_ELBO(num_particles=5, vectorize_particles=True)(model, guide)(x[0])
    assert loss.shape == ()
    assert bool(loss.isfinite())


def test_weights_start_with_the_gain_of_a_relu():
    """Variance 2 / fan_in, of which cutting at two standard deviations leaves 0.7737; 5 standard errors."""
    encoder = ConvEncoder((3, 28, 28), 2)
    for conv in (part for part in encoder.modules() if isinstance(part, nn.Conv2d)):
        fan_in = conv.in_channels * 16
        expected = 0.7737 * 2 / fan_in
        weight = conv.weight.detach()
        assert abs(float(weight.var()) - expected) < 5 * expected * math.sqrt(2 / weight.numel())
        assert float(weight.abs().max()) <= 2 * math.sqrt(2 / fan_in) * (1 + 1e-6)
        assert bool((conv.bias == 0).all())


@pytest.mark.parametrize("shape", [(3, 30, 28), (3, 28, 27), (1, 2, 2), (1, 0, 4), (28, 28), (784,), (0, 28, 28)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"\Aevent_shape: expected \(channels, height, width\), [^\n]*multiples of 4"):
        ConvEncoder(shape, 2)


@pytest.mark.parametrize("channels", [(), (4, 4, 4, 4)])
def test_too_many_stages_are_refused(channels):
    with pytest.raises(InputError, match=r"\Achannels: expected 1 to 3 stages, as each halves the 8x12 pixels, got"):
        ConvEncoder((1, 8, 12), 2, channels=channels)
