"""The importance-weighted bound: its terms, its limits, Pyro's RenyiELBO, and both gradients."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO
from torch import nn

from pyro_avae import AVAE_ELBO, compile_step
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.iwae import IWAE_ELBO, WEIGHTS
from pyro_avae.models import PPCA, VAE, bernoulli

F64 = torch.float64


def pair(seed=0, *, likelihood=None):
    torch.manual_seed(seed)
    options = {"likelihood": likelihood} if likelihood else {"obs_variance": 0.5}
    model = VAE(nn.Linear(2, 4), latent_dim=2, **options).double()
    return model, AmortizedGuide(LinearEncoder(4, 2).double())


def rows(count=6):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1), dtype=F64).round()


def gradients(loss, *modules):
    found = torch.autograd.grad(loss, [p for module in modules for p in module.parameters()])
    return torch.cat([g.flatten() for g in found])


def by_hand(model, guide, x, count):
    """The bound written out, with the same draws as the vectorised one."""
    loc, scale = guide.encode(x)
    z = loc + scale * torch.randn(count, *loc.shape, dtype=loc.dtype)
    p = model.observe(z).log_prob(x) + dist.Normal(torch.zeros_like(loc), 1.0).to_event(1).log_prob(z)
    log_w = p - dist.Normal(loc, scale).to_event(1).log_prob(z)
    return -(log_w.logsumexp(0) - math.log(count)).sum()


@pytest.mark.parametrize("likelihood", [None, bernoulli])
@pytest.mark.parametrize("count", [1, 5])
def test_value_and_gradients_are_those_of_the_formula(likelihood, count):
    model, guide = pair(likelihood=likelihood)
    torch.manual_seed(3)
    loss = IWAE_ELBO(num_particles=count)(model, guide)(rows())
    torch.manual_seed(3)
    expected = by_hand(model, guide, rows(), count)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    one, other = gradients(loss, model, guide), gradients(expected, model, guide)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_it_is_pyro_s_renyi_bound_of_order_0_in_one_plate():
    model, guide = pair()
    torch.manual_seed(5)
    ours = IWAE_ELBO(num_particles=4)(model, guide)(rows())
    torch.manual_seed(5)
    theirs = RenyiELBO(alpha=0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    assert float(ours.detach()) == pytest.approx(theirs.loss(model, guide, rows()), rel=1e-12)


@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("dreg", [True, False])
def test_the_terms_add_up_to_the_bound(vectorize, dreg):
    model, guide = pair()
    elbo = IWAE_ELBO(num_particles=4, vectorize_particles=vectorize, dreg=dreg)
    found = elbo.evaluate(model, guide, rows())
    assert set(found.sites) == {"x", "z", WEIGHTS}
    torch.testing.assert_close(sum(found.sites.values()), -found.loss.detach(), rtol=1e-12, atol=1e-12)
    assert -6 * math.log(4) <= float(found.sites[WEIGHTS]) <= 0


def test_one_sample_is_the_elbo():
    model, guide = pair()
    torch.manual_seed(2)
    terms = IWAE_ELBO(num_particles=1).terms(model, guide, rows())
    assert float(terms[WEIGHTS]) == 0
    with torch.no_grad():
        draws = torch.stack([IWAE_ELBO(num_particles=1)(model, guide)(rows()) for _ in range(2000)])
        exact = torch.stack([AVAE_ELBO()(model, guide)(rows()) for _ in range(2000)])
    error = (draws.var() / 2000 + exact.var() / 2000).sqrt()
    assert abs(float(draws.mean() - exact.mean())) < 4 * float(error)


class Posterior(nn.Module):
    """loc = A x, scale a fixed Cholesky factor; both parameters."""

    def __init__(self, gain, factor):
        super().__init__()
        self.gain, self.factor = nn.Parameter(gain), nn.Parameter(factor)

    def forward(self, x):
        return x @ self.gain.mT, self.factor.expand(*x.shape[:-1], 2, 2)


@pytest.mark.parametrize("dreg", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_on_the_exact_posterior_it_is_the_evidence_whatever_is_drawn(count, dreg):
    torch.manual_seed(0)
    decoder = nn.Linear(2, 4, bias=False).double()
    model = VAE(decoder, latent_dim=2, obs_variance=0.5)
    weight = decoder.weight.detach()
    covariance = torch.linalg.inv(torch.eye(2, dtype=F64) + weight.mT @ weight / 0.5)
    guide = AmortizedGuide(Posterior(covariance @ weight.mT / 0.5, torch.linalg.cholesky(covariance)))
    x = torch.randn(6, 4, dtype=F64)
    evidence = dist.MultivariateNormal(torch.zeros(4, dtype=F64), weight @ weight.mT + 0.5 * torch.eye(4, dtype=F64))
    loss = IWAE_ELBO(num_particles=count, dreg=dreg)(model, guide)(x)
    torch.testing.assert_close(-loss, evidence.log_prob(x).sum(), rtol=1e-12, atol=1e-12)
    if dreg:
        # Each sample's gradient vanishes, not only its mean: log w does not move with z.
        assert float(gradients(loss, guide).abs().max()) < 1e-10


def test_more_samples_come_nearer_to_the_evidence():
    torch.manual_seed(0)
    model, guide = pair()
    ppca = PPCA(model.decoder.weight.detach(), obs_variance=0.5, mean=model.decoder.bias.detach())
    evidence = float(ppca.log_evidence(rows()).sum().detach())
    with torch.no_grad():
        bounds = [
            -torch.stack([IWAE_ELBO(num_particles=k)(model, guide)(rows()) for _ in range(400)]).mean()
            for k in (1, 4, 64)
        ]
    assert bounds[0] < bounds[1] < bounds[2] < evidence + 0.05
    assert evidence - bounds[2] < 0.2 * (evidence - bounds[0])


@pytest.mark.parametrize("likelihood", [None, bernoulli])
def test_both_gradients_have_one_mean_and_dreg_s_has_less_variance(likelihood):
    model, guide = pair(likelihood=likelihood)
    count = 1500
    found = {}
    for dreg in (True, False):
        torch.manual_seed(1)
        elbo = IWAE_ELBO(num_particles=8, dreg=dreg)(model, guide)
        draws = [elbo(rows()) for _ in range(count)]
        found[dreg] = (
            torch.stack([gradients(loss, guide) for loss in [elbo(rows()) for _ in range(count)]]),
            torch.stack([gradients(loss, model) for loss in draws]),
        )
    for place in range(2):
        one, other = found[True][place], found[False][place]
        error = (one.var(0) / count + other.var(0) / count).sqrt()
        # About 20 gradients: 4.5 standard errors are exceeded by chance once in ten thousand runs.
        assert bool(((one.mean(0) - other.mean(0)).abs() <= 4.5 * error + 1e-12).all())
    assert float(found[True][0].var(0).sum()) < 0.7 * float(found[False][0].var(0).sum())
    # The model's gradient is the same one, draw by draw.
    torch.manual_seed(4)
    one = gradients(IWAE_ELBO(num_particles=8, dreg=True)(model, guide)(rows()), model)
    torch.manual_seed(4)
    other = gradients(IWAE_ELBO(num_particles=8)(model, guide)(rows()), model)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dreg", [True, False])
def test_a_compiled_step_is_the_eager_one(dreg, monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)
    losses = []
    for compile in (True, False):
        model, guide = pair()
        elbo = IWAE_ELBO(num_particles=3, dreg=dreg)(model, guide)
        with pyro.validation_enabled(False):
            step = compile_step(elbo, torch.optim.Adam(elbo.parameters(), lr=0.05), rows(), compile=compile)
            losses.append(torch.stack([step(rows()) for _ in range(5)]))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)


def test_sites_that_have_no_weight_are_refused():
    def outside(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(x, 1.0).to_event(1), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(InputError, match="site 'w': stands outside the plate of the data"):
        IWAE_ELBO(num_particles=1).differentiable_loss(outside, guide, rows())
    model, guide = pair()
    with pytest.raises(InputError, match=r"site '.*': scaled"):
        IWAE_ELBO(num_particles=2).differentiable_loss(pyro.poutine.scale(model, 2.0), guide, rows())
