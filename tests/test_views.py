"""Views on their own: values, where gradients stop, what is refused."""

import logging
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AVAEGuide
from pyro_avae.models import ExtendedVAE, bernoulli
from pyro_avae.views import GRADIENTS, VIEWS, DecoderMean, DecoderSample, distribution_mean, family_name


def gaussian(z):
    return dist.Normal(z.sum(-1, keepdim=True) * torch.ones(3), 0.5).to_event(1)


def coin(z):
    return dist.Bernoulli(logits=z.sum(-1, keepdim=True) * torch.ones(3)).to_event(1)


def die(z):
    return dist.Categorical(logits=z.unsqueeze(-2).expand(*z.shape[:-1], 3, z.shape[-1])).to_event(1)


def run(view, decode, z):
    return view("x_aux", torch.zeros(2, 3), z, decode=decode, encode=decode)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_sample_is_the_mean_and_its_noise(gradient):
    z = torch.rand(2, 4, requires_grad=True)
    torch.manual_seed(0)
    x_aux = run(DecoderSample(gradient=gradient), gaussian, z)
    torch.manual_seed(0)
    torch.testing.assert_close(x_aux, z.sum(-1, keepdim=True) + 0.5 * torch.randn(2, 3))
    if gradient == "cut":
        assert not x_aux.requires_grad
    else:
        torch.testing.assert_close(torch.autograd.grad(x_aux.sum(), z)[0], torch.full((2, 4), 3.0))


@pytest.mark.parametrize("gradient", [*GRADIENTS, None])
@pytest.mark.parametrize("decode", [gaussian, coin])
def test_a_mean_is_the_mean(gradient, decode):
    z = torch.rand(2, 4, requires_grad=True)
    x_aux = run(DecoderMean(gradient=gradient), decode, z)
    total = z.sum(-1, keepdim=True).expand(2, 3)
    expected = total if decode is gaussian else torch.sigmoid(total)
    torch.testing.assert_close(x_aux, expected)
    assert x_aux.requires_grad == (gradient != "cut")
    if gradient != "cut":
        ours, theirs = (torch.autograd.grad(value.sum(), z, retain_graph=True)[0] for value in (x_aux, expected))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("gradient", [None, "cut"])
def test_a_coin_is_tossed_without_gradient(gradient, caplog):
    z = torch.zeros(2, 4, requires_grad=True)
    view = DecoderSample(gradient=gradient)
    draws = torch.stack([run(view, coin, z) for _ in range(500)])
    assert not draws.requires_grad
    assert draws.unique().tolist() == [0.0, 1.0]
    # 3000 fair coins, 5 standard errors
    assert abs(float(draws.mean()) - 0.5) < 5 * 0.5 / math.sqrt(3000)
    told = [record.levelno for record in caplog.records]
    assert told == ([logging.WARNING] if gradient is None else [])


@pytest.mark.parametrize("decode", [coin, die])
def test_through_z_is_refused_where_a_sample_has_no_derivative(decode):
    family = {coin: "Bernoulli", die: "Categorical"}[decode]
    way_out = r"use gradient='cut' \(or None\), or view='mean'"
    with pytest.raises(InputError, match=rf"\Agradient='through_z': site 'x_aux' has a {family} [^\n]*{way_out}\Z"):
        run(DecoderSample(gradient="through_z"), decode, torch.rand(2, 4))


def test_through_z_is_refused_on_a_whole_pair():
    model = ExtendedVAE(nn.Linear(2, 3), latent_dim=2, likelihood=bernoulli)

    class Encoder(nn.Linear):
        def forward(self, x):
            loc = super().forward(x)
            return loc, torch.ones_like(loc)

    guide = AVAEGuide(Encoder(3, 2), model, gradient="through_z")
    with pytest.raises(InputError, match=r"gradient='through_z'.*view='mean'"):
        AVAE_ELBO()(model, guide)(torch.ones(4, 3))
    mean = AVAEGuide(guide.encoder, model, gradient="through_z", view="mean")  # the way out
    assert bool(AVAE_ELBO()(model, mean)(torch.ones(4, 3)).isfinite())


@pytest.mark.parametrize(
    ("likelihood", "family"),
    [
        (dist.Categorical(torch.ones(2, 3, 4)).to_event(1), "Categorical"),
        (dist.Cauchy(torch.zeros(2, 3), 1.0).to_event(1), "Cauchy"),
        (dist.TransformedDistribution(dist.Normal(torch.zeros(2, 3), 1.0), [dist.transforms.TanhTransform()]), None),
    ],
)
def test_a_mean_is_refused_where_there_is_none(likelihood, family):
    name = family or "TransformedDistribution"
    with pytest.raises(InputError, match=rf"\Aview='mean', site 'x_aux': a {name} [^\n]*; use view='sample'\Z"):
        run(DecoderMean(), lambda z: likelihood, torch.rand(2, 4))


@pytest.mark.parametrize("view", VIEWS.values())
@pytest.mark.parametrize("gradient", ["", "cut ", "through_x", 1])
def test_an_unknown_gradient_is_refused(view, gradient):
    with pytest.raises(InputError, match=rf"gradient: expected None, 'through_z', 'cut', got {gradient!r}"):
        view(gradient=gradient)


def test_a_categorical_pair_works_with_samples():
    """Data are integers; the encoder looks classes up; nothing can be reparametrised, so the gradient is cut."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, x):
            loc = self.table(x).sum(1)
            return loc, torch.ones_like(loc)

    decoder = nn.Sequential(nn.Linear(2, 12), nn.Unflatten(-1, (3, 4)))
    model = ExtendedVAE(decoder, latent_dim=2, likelihood=lambda out: dist.Categorical(logits=out))
    guide = AVAEGuide(Encoder(), model, gradient="cut")
    x = torch.randint(0, 4, (5, 3))
    torch.manual_seed(3)
    terms = AVAE_ELBO(num_particles=2, vectorize_particles=True).terms(model, guide, x)
    torch.manual_seed(3)
    z = guide.encode(x)[0] + torch.randn(2, 5, 2)
    log_prob = decoder(z.reshape(10, 2)).log_softmax(-1).reshape(2, 5, 3, 4)
    picked = log_prob.gather(-1, x.expand(2, 5, 3).unsqueeze(-1))
    torch.testing.assert_close(terms["x"], picked.sum() / 2)
    assert sorted(terms) == ["x", "z", "z_aux"]


def test_names_and_means_are_found_below_independent():
    deep = dist.Normal(torch.zeros(2, 3, 4), 1.0).to_event(1).to_event(1)
    assert family_name(deep) == "Normal"
    assert distribution_mean(deep, what="here").shape == (2, 3, 4)


def test_a_view_is_recorded_in_the_guides_trace():
    trace = pyro.poutine.trace(lambda: run(DecoderMean(), gaussian, torch.ones(2, 4))).get_trace()
    torch.testing.assert_close(trace.nodes["x_aux"]["value"], torch.full((2, 3), 4.0))
