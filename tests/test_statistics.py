"""Passes inside ``untouched_statistics``: what they compute, and that they leave no trace."""

import copy

import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.chain import iterated_reconstructions, run_chain
from pyro_avae.data import load_dataset
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Classifier, encode_split, evaluate, fit_probe, frozen, pgd
from pyro_avae.guides import AmortizedGuide, AVAEGuide, ConvEncoder, MLPEncoder
from pyro_avae.models import VAE, ConvDecoder, ExtendedVAE, MLPDecoder
from pyro_avae.statistics import statistics_layers, untouched_statistics

USES = ("batch", "running")


def network():
    """Layers of both kinds, with statistics that are neither 0 nor 1 nor those of :func:`data`."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Flatten(),
        nn.Linear(16, 5),
        nn.BatchNorm1d(5, momentum=None),
    )
    net(torch.randn(7, 2, 4, 4) - 1)
    return net


def data():
    return 2 * torch.rand(6, 2, 4, 4) + 1


def statistics(*modules):
    return {
        (index, name): value.clone()
        for index, module in enumerate(modules)
        for name, value in module.named_buffers()
        if name.rsplit(".")[-1] in ("running_mean", "running_var", "num_batches_tracked")
    }


def assert_same(before, after):
    assert before.keys() == after.keys()
    assert len(before) > 0
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pass_outside_changes_every_statistic():
    """Else the tests below could not fail. Instance normalisation does not count its batches."""
    net = network()
    before = statistics(net)
    net(data())
    same = [name for name, value in statistics(net).items() if torch.equal(value, before[name])]
    assert same == [(0, "2.num_batches_tracked")]


@pytest.mark.parametrize("use", USES)
def test_passes_inside_change_no_statistics(use):
    net = network()
    before = statistics(net)
    with untouched_statistics([net], use=use):
        for _ in range(2):
            net(data())
    assert_same(before, statistics(net))


@pytest.mark.parametrize("use", USES)
def test_the_output_is_that_of_training_or_eval_mode(use):
    net, x = network(), data()
    train, evaluated = copy.deepcopy(net)(x), copy.deepcopy(net).eval()(x)
    assert float((train - evaluated).detach().abs().max()) > 0.1
    with untouched_statistics([net], use=use):
        out = net(x)
    assert torch.equal(out, {"batch": train, "running": evaluated}[use])


@pytest.mark.parametrize("use", USES)
def test_gradients_are_those_of_training_or_eval_mode(use):
    net, x = network(), data()
    other = copy.deepcopy(net).train(use == "batch")
    with untouched_statistics([net], use=use):
        net(x)[0].sum().backward()
    other(x)[0].sum().backward()
    for ours, theirs in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("use", USES)
def test_layers_in_eval_mode_stay_so(use):
    net, x = network(), data()
    net[1].eval()
    expected = copy.deepcopy(net)[1](torch.ones(2, 4, 2, 2))
    before = statistics(net)
    with untouched_statistics([net], use=use):
        assert torch.equal(net[1](torch.ones(2, 4, 2, 2)), expected)
        net(x)
    assert_same(before, statistics(net))
    assert [part.training for part in net] == [True, False, True, True, True, True]


@pytest.mark.parametrize("use", USES)
def test_everything_comes_back_even_after_an_error(use):
    net = network()
    before, state = statistics(net), net.state_dict()
    tensors = dict(net.named_buffers())
    with pytest.raises(RuntimeError, match="stop"), untouched_statistics([net], use=use):
        raise RuntimeError("stop")
    assert all(part.training for part in net.modules())
    assert all(layer.track_running_stats for layer in statistics_layers(net))
    assert list(net.state_dict()) == list(state)
    assert all(buffer is tensors[name] for name, buffer in net.named_buffers())
    assert_same(before, statistics(net))
    net(data())
    assert not torch.equal(statistics(net)[0, "1.running_mean"], before[0, "1.running_mean"])


@pytest.mark.parametrize("outer", USES)
@pytest.mark.parametrize("inner", USES)
def test_nested_the_outer_one_counts(outer, inner):
    net, x = network(), data()
    before = statistics(net)
    with untouched_statistics([net], use=outer):
        expected = net(x)
        with untouched_statistics([net], use=inner):
            assert torch.equal(net(x), expected)
        assert torch.equal(net(x), expected)
    assert_same(before, statistics(net))
    assert all(layer.training and layer.track_running_stats for layer in statistics_layers(net))


@pytest.mark.parametrize("use", USES)
def test_a_layer_may_come_twice(use):
    net = network()
    before = statistics(net)
    with untouched_statistics([net, *statistics_layers(net), net], use=use):
        net(data())
    assert_same(before, statistics(net))
    assert all(layer.training and layer.track_running_stats for layer in statistics_layers(net))


def test_which_layers_keep_statistics():
    net = nn.Sequential(network(), nn.BatchNorm1d(5, track_running_stats=False), nn.LayerNorm(5), nn.GroupNorm(1, 5))
    assert statistics_layers(net) == [net[0][1], net[0][2], net[0][5]]


@pytest.mark.parametrize("use", USES)
def test_dropout_and_networks_without_statistics_are_left_alone(use):
    net = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3, track_running_stats=False))
    with untouched_statistics([net], use=use):
        assert all(part.training for part in net.modules())
        assert net[2].running_mean is None
    assert not net[2].track_running_stats


@pytest.mark.parametrize("use", ["eval", "", None])
def test_another_use_is_refused(use):
    message = rf"\Astatistics: expected one of batch, running, got {use!r}\Z"
    with pytest.raises(InputError, match=message), untouched_statistics([], use=use):
        pass


@pytest.fixture(params=["mlp", "conv"])
def pair(request):
    """A pair with batch normalisation in training mode, its statistics moved away from where they start."""
    images = load_dataset("color-digits", limit=100)
    if request.param == "mlp":
        encoder = MLPEncoder(images.shape, 4, hidden=[8], normalization="batch")
        decoder = MLPDecoder(4, images.shape, hidden=[8], normalization="batch")
    else:
        encoder = ConvEncoder(images.shape, 4, channels=[4, 4], hidden=[8], normalization="batch")
        decoder = ConvDecoder(4, images.shape, channels=[4, 4], hidden=[8], normalization="batch")
    model, guide = VAE(decoder, latent_dim=4), AmortizedGuide(encoder)
    x, labels = images.test.batch(torch.arange(10), torch.Generator().manual_seed(0))
    model.decode(guide.encode(x)[0])
    return model, guide, images, x, labels["digit"]


def test_evaluation_attacks_and_chain_leave_statistics_alone(pair):
    model, guide, images, x, labels = pair
    before = statistics(model, guide)
    first = evaluate(
        model, guide, images, epsilons=[0.0, 0.1], steps=2, restarts=1, limit=10, num_importance_samples=32
    )
    run_chain(model, guide, num_chains=2, num_draws=4)
    run_chain(model, guide, start=x, num_draws=4)
    iterated_reconstructions(model, guide, x, 2)
    with frozen(model, guide):
        features, classes = encode_split(guide, images.train)
    classifier = Classifier(guide, fit_probe(features, classes["digit"], 10))
    with frozen(classifier):
        pgd(classifier, x, labels, 0.1, steps=2, restarts=1, generator=torch.Generator().manual_seed(0))
    assert_same(before, statistics(model, guide))
    assert all(part.training for module in (model, guide) for part in module.modules())
    again = evaluate(
        model.eval(),
        guide.eval(),
        images,
        epsilons=[0.0, 0.1],
        steps=2,
        restarts=1,
        limit=10,
        num_importance_samples=32,
    )
    assert again == first


@pytest.mark.parametrize("use", USES)
def test_a_training_step_updates_every_statistic_once_by_the_data_alone(use):
    shape = (2, 8, 8)
    encoder = ConvEncoder(shape, 3, channels=[4, 4], hidden=[8], normalization="batch")
    decoder = ConvDecoder(3, shape, channels=[4, 4], hidden=[8], normalization="batch")
    model = ExtendedVAE(decoder, latent_dim=3, num_views=2)
    guide = AVAEGuide(encoder, model, statistics=use)
    x, alone = torch.rand(16, *shape), copy.deepcopy(encoder)
    alone(x)
    AVAE_ELBO()(model, guide)(x).backward()
    assert_same(statistics(alone), statistics(encoder))
    for layer in statistics_layers(encoder) + statistics_layers(decoder):
        assert int(layer.num_batches_tracked) == 1
