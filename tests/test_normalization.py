"""Normalisation: what each layer does to numbers, and which samples it couples."""

import pytest
import torch
from torch import nn

from pyro_avae.errors import InputError
from pyro_avae.guides import ConvEncoder, MLPEncoder
from pyro_avae.models import ConvDecoder, MLPDecoder
from pyro_avae.networks import mlp
from pyro_avae.normalization import NORMALIZATIONS, Normalization, as_normalization

F64 = torch.float64
#: Layers divide by sqrt(variance + 1e-5), and the variances here are above 0.1.
EPS = 1e-4
NAMES = list(NORMALIZATIONS)


def normalized(name, x):
    """``x`` through the layers for its shape, in training mode."""
    part = NORMALIZATIONS[name]
    layers = part.vectors(x.shape[1]) if x.dim() == 2 else part.maps(x.shape[1])
    return nn.Sequential(*layers).to(x.dtype)(x).detach()


def spread(x, dims):
    return x.mean(dims), x.var(dims, correction=0)


@pytest.mark.parametrize(
    ("name", "shape", "view", "dims"),
    [
        ("batch", (6, 8, 3, 5), (6, 8, 3, 5), (0, 2, 3)),
        ("batch", (6, 8), (6, 8), (0,)),
        ("layer", (6, 8, 3, 5), (6, 8, 3, 5), (1, 2, 3)),
        ("layer", (6, 8), (6, 8), (1,)),
        ("group", (6, 8, 3, 5), (6, 2, 4, 3, 5), (2, 3, 4)),
        ("group", (6, 8), (6, 2, 4), (2,)),
    ],
)
def test_mean_0_and_variance_1_over_the_right_dimensions(name, shape, view, dims):
    x = 3 + 2 * torch.randn(shape, dtype=F64) + torch.arange(8, dtype=F64).view(1, 8, *[1] * (len(shape) - 2))
    mean, variance = spread(normalized(name, x).reshape(view), dims)
    assert float(mean.abs().max()) < 1e-12
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=EPS, atol=EPS)


def test_none_is_no_layer():
    assert NORMALIZATIONS["none"].maps(3) == NORMALIZATIONS["none"].vectors(3) == []


@pytest.mark.parametrize(
    ("channels", "groups"), [(3, 1), (4, 1), (8, 2), (12, 1), (16, 4), (64, 8), (200, 2), (256, 8)]
)
def test_groups_are_at_most_8_and_hold_at_least_4_channels(channels, groups):
    for layers in (NORMALIZATIONS["group"].maps(channels), NORMALIZATIONS["group"].vectors(channels)):
        assert [layer.num_groups for layer in layers] == [groups]


@pytest.mark.parametrize("name", NAMES)
def test_the_mlp_by_hand(name):
    net = mlp([3, 8, 2], normalization=name).double()
    x = torch.randn(5, 3, dtype=F64)
    first, last = net[0], net[-1]
    hidden = x @ first.weight.T + (0 if first.bias is None else first.bias)
    by_hand = torch.relu(normalized(name, hidden)) @ last.weight.T + last.bias
    torch.testing.assert_close(net(x), by_hand, rtol=1e-12, atol=1e-12)


def test_a_bias_that_normalisation_would_take_away_is_not_there():
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    for net, free in (
        (MLPEncoder((1, 4, 4), 2, hidden=[5, 5], normalization="batch"), 1),
        (ConvEncoder((1, 8, 8), 2, channels=[4, 4], hidden=[5], normalization="batch"), 1),
        # The vector that becomes a map has a bias for each pixel, of which only the channel's mean is taken away.
        (ConvDecoder(2, (1, 8, 8), channels=[4, 4], hidden=[5], normalization="batch"), 2),
    ):
        layers = [part for part in net.modules() if isinstance(part, kinds)]
        assert sum(layer.bias is not None for layer in layers) == free


def networks(name):
    """Encoders and decoders in float64, and something to put in."""
    images, latents = torch.rand(6, 2, 8, 8, dtype=F64), torch.randn(6, 3, dtype=F64)
    return [
        (MLPEncoder((2, 8, 8), 3, hidden=[8, 8], normalization=name).double(), images),
        (ConvEncoder((2, 8, 8), 3, channels=[8, 8], hidden=[8], normalization=name).double(), images),
        (MLPDecoder(3, (2, 8, 8), hidden=[8, 8], normalization=name).double(), latents),
        (ConvDecoder(3, (2, 8, 8), channels=[8, 8], hidden=[8], normalization=name).double(), latents),
    ]


def output(net, x):
    out = net(x)
    return torch.cat([o.flatten(1) for o in (out if isinstance(out, tuple) else (out,))], 1)


def coupling(net, x):
    """The largest derivative of the first sample's output with respect to another sample."""
    x = x.clone().requires_grad_()
    weights = torch.randn(output(net, x).shape[1], dtype=F64)
    (grad,) = torch.autograd.grad(output(net, x)[0] @ weights, x)
    return float(grad[1:].abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_only_batch_normalisation_couples_samples_and_only_in_training(name):
    for net, x in networks(name):
        assert (coupling(net, x) > 0) == (name == "batch")
        net.eval()
        assert coupling(net, x) == 0
        alone = torch.cat([output(net, row[None]) for row in x])
        torch.testing.assert_close(output(net, x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_permuted_batch_gives_permuted_outputs(name):
    order = torch.randperm(6)
    for net, x in networks(name):
        torch.testing.assert_close(output(net, x[order]), output(net, x)[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_reaches_maps_and_vectors(name):
    kinds = {
        "none": {},
        "batch": {nn.BatchNorm1d: 1, nn.BatchNorm2d: 2},
        "layer": {nn.LayerNorm: 1, nn.GroupNorm: 2},
        "group": {nn.GroupNorm: 3},
    }[name]
    for (net, _), vectors_only in zip(networks(name), (True, False, True, False), strict=True):
        found = [type(part) for part in net.modules() if "Norm" in type(part).__name__]
        expected = sum(kinds.values()) if not vectors_only else 2 * (name != "none")
        assert len(found) == expected
        if not vectors_only:
            assert {kind: found.count(kind) for kind in set(found)} == kinds


def test_a_normalisation_of_ones_own():
    own = Normalization(maps=lambda c: [nn.InstanceNorm2d(c)], vectors=lambda c: [])
    assert as_normalization(own) is own
    net = ConvEncoder((1, 8, 8), 2, channels=[4], hidden=[5], normalization=own)
    assert sum(isinstance(part, nn.InstanceNorm2d) for part in net.modules()) == 1


@pytest.mark.parametrize("name", ["Batch", "", "instance", None, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda name: MLPEncoder((1, 8, 8), 2, normalization=name),
        lambda name: MLPDecoder(2, (1, 8, 8), normalization=name),
        lambda name: ConvEncoder((1, 8, 8), 2, normalization=name),
        lambda name: ConvDecoder(2, (1, 8, 8), normalization=name),
    ],
)
def test_unknown_names_are_refused(make, name):
    message = rf"\Anormalization: expected one of none, batch, layer, group, or a Normalization, got {name!r}\Z"
    with pytest.raises(InputError, match=message):
        make(name)
