"""The plain model, against its density by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import VAE, Gaussian, MLPDecoder, bernoulli

F64 = torch.float64
#: Some tens of roundings.
ROUNDING = 1e3 * torch.finfo(F64).eps


def test_the_joint_density_by_hand():
    model = VAE(nn.Linear(2, 3).double(), latent_dim=2, obs_variance=0.3)
    x, z = torch.rand(4, 3, dtype=F64), torch.rand(4, 2, dtype=F64)
    trace = pyro.poutine.trace(pyro.poutine.condition(model, {"z": z})).get_trace(x)
    weight, bias = model.decoder.weight, model.decoder.bias
    log_prior = (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum()
    log_likelihood = (-((x - z @ weight.T - bias) ** 2) / 0.6 - 0.5 * math.log(2 * math.pi * 0.3)).sum()
    torch.testing.assert_close(trace.log_prob_sum(), log_prior + log_likelihood, rtol=ROUNDING, atol=ROUNDING)
    assert [frame.name for frame in trace.nodes["x"]["cond_indep_stack"]] == ["data"]
    assert trace.nodes["x"]["fn"].event_shape == (3,)


def test_decode_is_the_mean_and_observe_the_distribution():
    decoder = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(-1, (1, 2, 2)))
    for likelihood, mean in ((None, lambda out: out), (bernoulli, torch.sigmoid)):
        model = VAE(decoder, latent_dim=2, likelihood=likelihood)
        z = torch.rand(5, 3, 2)
        out = decoder(z.reshape(15, 2)).reshape(5, 3, 1, 2, 2)
        torch.testing.assert_close(model.decode(z), mean(out))
        observed = model.observe(z)
        assert (observed.batch_shape, observed.event_shape) == ((5, 3), (1, 2, 2))
        torch.testing.assert_close(model.decode(z[0, 0]), mean(out[0, 0]))


@pytest.mark.parametrize("gaussian", [None, Gaussian(obs_variance=0.7, learned=True)])
def test_held_constant_has_the_value_and_the_gradient_at_z_alone(gaussian):
    model = VAE(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)), latent_dim=2, likelihood=gaussian).double()
    z, x = torch.rand(5, 2, dtype=F64, requires_grad=True), torch.rand(5, 3, dtype=F64)
    live, constant = model.observe(z).log_prob(x).sum(), model.observe_constant(z).log_prob(x).sum()
    torch.testing.assert_close(live, constant, rtol=0, atol=0)
    torch.testing.assert_close(torch.autograd.grad(constant, z, retain_graph=True), torch.autograd.grad(live, z))
    grads = torch.autograd.grad(constant, list(model.parameters()), allow_unused=True)
    assert grads == (None,) * len(list(model.parameters()))
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_held_constant_reaches_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(2, 2), nn.Linear(2, 2)
            self.two.weight = self.one.weight
            self.again = self.one

        def forward(self, z):
            return self.again(self.two(self.one(z)))

    model = VAE(Tied(), latent_dim=2)
    z = torch.rand(3, 2)
    assert not model.observe_constant(z).mean.requires_grad
    torch.testing.assert_close(model.observe_constant(z).mean, model.observe(z).mean)
    model.observe(z).mean.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_samples_have_the_moments_of_the_model():
    """x = W z + noise: mean 0 and variance WW' + nu, or WW' without noise; 5 standard errors."""
    count = 40_000
    model = VAE(nn.Linear(2, 1, bias=False).double(), latent_dim=2, obs_variance=0.5)
    with torch.no_grad():
        model.decoder.weight.copy_(torch.tensor([[1.0, -2.0]]))
    for noise, variance in ((False, 5.0), (True, 5.5)):
        x = model.sample(count, noise=noise)
        assert x.shape == (count, 1)
        assert not x.requires_grad
        assert abs(float(x.mean())) < 5 * math.sqrt(variance / count)
        assert abs(float(x.var()) - variance) < 5 * variance * math.sqrt(2 / count)


def test_a_likelihood_may_read_a_tuple():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc, self.raw = nn.Linear(2, 3), nn.Linear(2, 3)

        def forward(self, z):
            return self.loc(z), self.raw(z)

    model = VAE(Heads(), latent_dim=2, likelihood=lambda out: dist.Normal(out[0], out[1].exp()))
    z = torch.rand(4, 6, 2)
    torch.testing.assert_close(model.observe(z).mean, model.decoder.loc(z))
    torch.testing.assert_close(model.observe(z).variance, (2 * model.decoder.raw(z)).exp())


def test_a_likelihood_may_bring_its_own_event_dimensions():
    model = VAE(nn.Linear(2, 3), latent_dim=2, likelihood=lambda out: dist.MultivariateNormal(out, torch.eye(3)))
    observed = model.observe(torch.rand(5, 4, 2))
    assert (observed.batch_shape, observed.event_shape) == ((5, 4), (3,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim: expected an integer of at least 1, got 0"),
        ({"latent_dim": True}, "got True"),
        ({"latent_dim": 2.0}, "got 2.0"),
        ({"obs_variance": 0.0}, "obs_variance: expected a finite number above 0, got 0.0"),
        ({"obs_variance": -1}, "got -1"),
        ({"obs_variance": math.nan}, "got nan"),
        ({"obs_variance": math.inf}, "got inf"),
        ({"obs_variance": "0.5"}, "got '0.5'"),
        ({"obs_variance": True}, "got True"),
        ({"obs_variance": 0.5, "likelihood": bernoulli}, "likelihood and obs_variance: give one of them"),
        ({"likelihood": 3}, "likelihood: expected a function of the decoder's output, got 3"),
        ({"decoder": torch.tanh}, "decoder: expected a torch.nn.Module, got builtin_function_or_method"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        VAE(**{"decoder": nn.Linear(2, 3), "latent_dim": 2, **options})


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 1), (4, 3, 1), (4, 1, 3)])
def test_data_of_another_shape_are_refused(shape):
    model = VAE(nn.Linear(2, 3), latent_dim=2)
    with pytest.raises(InputError, match=r"\Ax: the decoder makes events of shape \(3,\), but x has shape [^\n]*\Z"):
        model(torch.rand(shape))


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        (lambda out: out, "expected it to return a Pyro distribution, got Tensor"),
        (
            lambda out: torch.distributions.Normal(out, 1.0),
            "Pyro distribution, got Normal; use the classes of pyro.dist",
        ),
        (lambda out: dist.Normal(out.sum(), 1.0), r"batch shape \(\) lacks the batch of z, \(4,\)"),
    ],
)
def test_a_likelihood_of_another_kind_is_refused(likelihood, message):
    with pytest.raises(InputError, match=rf"\Alikelihood: [^\n]*{message}"):
        VAE(nn.Linear(2, 3), latent_dim=2, likelihood=likelihood)(torch.rand(4, 3))


def test_decode_is_refused_where_there_is_no_mean():
    model = VAE(nn.Linear(2, 3), latent_dim=2, likelihood=lambda out: dist.Categorical(logits=out))
    with pytest.raises(InputError, match="decode: a Categorical likelihood has no mean"):
        model.decode(torch.rand(4, 2))


def test_the_prior_follows_the_data():
    model = VAE(nn.Linear(2, 3), latent_dim=2)
    for like, dtype in (
        (torch.zeros(1, dtype=F64), F64),
        (torch.zeros(1), torch.float32),
        (torch.zeros(1).long(), None),
    ):
        prior = model.prior(like)
        assert prior.event_shape == (2,)
        assert prior.sample().dtype == (dtype or torch.get_default_dtype())


def test_the_mlp_decoder_by_hand():
    decoder = MLPDecoder(2, (1, 2, 3), hidden=[5]).double()
    first, second = decoder.layers[0], decoder.layers[2]
    z = torch.rand(7, 2, dtype=F64)
    out = torch.relu(z @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(decoder(z), torch.sigmoid(out).reshape(7, 1, 2, 3), rtol=ROUNDING, atol=ROUNDING)
    decoder.output = None
    torch.testing.assert_close(decoder(z), out.reshape(7, 1, 2, 3), rtol=ROUNDING, atol=ROUNDING)


def test_weights_start_as_a_truncated_normal():
    """Cut at two standard deviations of 1/sqrt(fan_in), the variance is 0.7737 of a normal's; biases are 0."""
    layer = MLPDecoder(100, (400,), hidden=[]).layers[0]
    assert bool((layer.bias == 0).all())
    assert float(layer.weight.detach().abs().max()) <= 0.2
    phi, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    expected = (1 - 4 * phi / mass) / 100
    variance, count = float(layer.weight.detach().var()), layer.weight.numel()
    # the kurtosis of a truncated normal is below 3, so the normal's standard error is an upper bound
    assert abs(variance - expected) < 5 * expected * math.sqrt(2 / count)


def test_grey_pixels_under_a_bernoulli_are_refused_in_one_line():
    model = VAE(nn.Linear(2, 5), latent_dim=2, likelihood=bernoulli)
    guide = AmortizedGuide(LinearEncoder(5, 2))
    with pytest.raises(InputError, match=r"outside the support of the Bernoulli likelihood, they lie in \[0.5, 0.5\]"):
        AVAE_ELBO()(model, guide)(torch.full((3, 5), 0.5))
