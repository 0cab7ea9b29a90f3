"""Hamiltonian dynamics: the leapfrog's geometry, the bound in closed form on linear-Gaussian pairs, and any model."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.distributions import kl_divergence

from pyro_avae import AVAE_ELBO, IWAE_ELBO, compile_step
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, Hamiltonian, LinearEncoder, SelfSupervisedGuide
from pyro_avae.guides.hamiltonian import TEMPERINGS, leapfrog
from pyro_avae.models import VAE, ExtendedVAE, SelfSupervisedVAE, bernoulli

F64 = torch.float64
L = 2


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(F64)
    yield
    torch.set_default_dtype(torch.float32)


def rows(count=3):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1), dtype=F64).round()


def plain(*, likelihood=None, **options):
    torch.manual_seed(0)
    given = {"likelihood": likelihood} if likelihood else {"obs_variance": 0.5}
    model = VAE(nn.Linear(L, 4), latent_dim=L, **given)
    dynamics = Hamiltonian(model, latent_dim=L, **{"steps": 3, **options})
    return model, AmortizedGuide(LinearEncoder(4, L), dynamics=dynamics)


def spread(dynamics):
    """Step sizes that differ between dimensions and, where they may, between steps."""
    with torch.no_grad():
        dynamics.raw_step += torch.linspace(-0.5, 0.5, dynamics.raw_step.numel()).view_as(dynamics.raw_step)


def affine_flow(dynamics, x):
    """(M, c) of (z_K, rho_K) = M (z_0, gamma) + c for one row of a linear-Gaussian model."""

    def flow(start):
        z, momentum = dynamics.move(x, start[None, :L], start[None, L:])
        return torch.cat([z[0], momentum[0]])

    zero = torch.zeros(2 * L)
    return torch.autograd.functional.jacobian(flow, zero), flow(zero).detach()


def test_the_leapfrog_is_reversible_and_keeps_the_volume():
    torch.manual_seed(0)
    weight, step = torch.randn(3, 3), torch.tensor([0.1, 0.3, 0.2])

    def gradient(z):
        return torch.tanh(z @ weight)

    z, momentum = torch.randn(3), torch.randn(3)
    there = leapfrog(z, momentum, gradient, step)
    back = leapfrog(there[0], -there[1], gradient, step)
    torch.testing.assert_close(torch.cat([back[0], -back[1]]), torch.cat([z, momentum]), rtol=0, atol=1e-14)
    whole = torch.autograd.functional.jacobian(
        lambda s: torch.cat(leapfrog(s[:3], s[3:], gradient, step)), torch.cat([z, momentum])
    )
    assert float(torch.linalg.det(whole)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("vary", [False, True])
def test_the_flow_s_volume_is_that_of_the_tempering(tempering, vary):
    _, guide = plain(likelihood=bernoulli, tempering=tempering, vary=vary)
    spread(guide.dynamics)
    start = float(guide.dynamics.factors.prod().detach())  # sqrt(beta_0)
    assert start == 1 if tempering == "none" else 0 < start < 1
    whole, _ = affine_flow(guide.dynamics, rows(1))  # of a nonlinear model: the Jacobian at zero
    # The first momentum is gamma / sqrt(beta_0), which undoes it.
    assert float(torch.linalg.slogdet(whole)[1]) == pytest.approx(0, abs=1e-12)


def test_fixed_tempering_is_quadratic_in_the_root():
    _, guide = plain(tempering="fixed", steps=4)
    roots = 1 / guide.dynamics.factors.flip(0).cumprod(0).flip(0)  # 1/sqrt(beta_{k-1}), as beta_K = 1
    roots = roots.detach()
    start = float(roots[0])
    assert start**2 == pytest.approx(1.5)
    for k in range(4):
        assert float(roots[k]) == pytest.approx((1 - start) * k**2 / 16 + start)


def test_the_energy_error_falls_with_the_square_of_the_step():
    _, guide = plain(likelihood=bernoulli, tempering="none", steps=1)
    x, torch_z = rows(1), torch.tensor([[0.7, -0.4]])
    momentum = torch.tensor([[0.5, 1.0]])

    def error(size, count):
        z, p = torch_z, momentum
        energy = [float((-guide.dynamics.log_density(x, z) + (p**2).sum() / 2).detach())]
        for _ in range(count):
            z, p = leapfrog(z, p, lambda at: guide.dynamics.gradient(x, at), torch.tensor(size))
            energy.append(float((-guide.dynamics.log_density(x, z) + (p**2).sum() / 2).detach()))
        return abs(energy[-1] - energy[0])

    assert 3.5 < error(0.2, 5) / error(0.1, 10) < 4.5


def test_the_density_is_the_model_s_with_the_other_latents_integrated_out():
    torch.manual_seed(0)
    decoder = nn.Linear(L, 4)
    z, x = torch.randn(3, L), rows()
    for model in (VAE(decoder, latent_dim=L), ExtendedVAE(decoder, latent_dim=L, rho=0.9, num_views=2)):
        found = Hamiltonian(model, latent_dim=L).log_density(x, z)
        expected = model.observe(z).log_prob(x).sum() + dist.Normal(torch.zeros(L), 1.0).log_prob(z).sum()
        torch.testing.assert_close(found, expected)


class Exact:
    """The closed form of the bound on a linear-Gaussian pair, by the affine map of the flow."""

    def __init__(self, model, guide):
        self.model, self.guide = model, guide

    def bound(self, x):
        weight, bias, noise = self.model.decoder.weight, self.model.decoder.bias, 0.5
        covariance = torch.linalg.inv(torch.eye(L) + weight.mT @ weight / noise)
        evidence = dist.MultivariateNormal(bias, weight @ weight.mT + noise * torch.eye(4)).log_prob(x).sum()
        total = evidence
        loc, scale = self.guide.encode(x)
        for row, m, s in zip(x, loc, scale, strict=True):
            whole, shift = affine_flow(self.guide.dynamics, row[None])
            start = torch.cat([m, torch.zeros(L)])
            factor = whole @ torch.diag(torch.cat([s, torch.ones(L)]))
            ended = dist.MultivariateNormal(whole @ start + shift, factor @ factor.mT)
            posterior = covariance @ weight.mT @ (row - bias) / noise
            target = dist.MultivariateNormal(
                torch.cat([posterior, torch.zeros(L)]), torch.block_diag(covariance, torch.eye(L))
            )
            total = total - kl_divergence(ended, target)
        return float(total.detach()), float(evidence.detach())


@pytest.mark.parametrize("tempering", TEMPERINGS)
@pytest.mark.parametrize("elbo", [AVAE_ELBO, Trace_ELBO])
def test_the_bound_is_its_closed_form_and_below_the_evidence(tempering, elbo):
    model, guide = plain(tempering=tempering)
    spread(guide.dynamics)
    exact, evidence = Exact(model, guide).bound(rows())
    assert exact < evidence
    count = 2000 if elbo is AVAE_ELBO else 300
    module = elbo(num_particles=50, vectorize_particles=True, max_plate_nesting=1)(model, guide)
    with torch.no_grad():
        draws = -torch.stack([module(rows()) for _ in range(count // 50)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean()) - exact) < 4 * error + 1e-9


def test_importance_weights_are_unbiased_for_the_evidence():
    """E w = p(x), the momenta included; and one sample is the ELBO."""
    model, guide = plain(tempering="fixed", step_size=0.3)
    _, evidence = Exact(model, guide).bound(rows(1))
    with torch.no_grad():
        bound = -float(IWAE_ELBO(num_particles=20_000)(model, guide)(rows(1)))
    assert bound == pytest.approx(evidence, abs=0.02)  # the weights' spread is below 1: 1 / sqrt(20,000) and a margin
    losses = []
    for elbo in (IWAE_ELBO(num_particles=1), AVAE_ELBO()):
        torch.manual_seed(3)
        losses.append(elbo(model, guide)(rows()))
    torch.testing.assert_close(*losses)


def test_dynamics_bring_the_bound_nearer_to_the_evidence():
    model, guide = plain(tempering="none", steps=5, step_size=0.3)
    moved, evidence = Exact(model, guide).bound(rows())
    loc, scale = guide.encode(rows())
    q = dist.Normal(loc, scale).to_event(1)
    z = q.rsample((20_000,))
    prior = dist.Normal(torch.zeros(L), 1.0).to_event(1)
    still = (model.observe(z).log_prob(rows()) + prior.log_prob(z) - q.log_prob(z)).detach()
    assert float(still.mean(0).sum()) < moved < evidence


def test_steps_of_no_size_are_the_vae():
    model, guide = plain(tempering="none")
    with torch.no_grad():
        guide.dynamics.raw_step.fill_(-math.inf)
    terms = AVAE_ELBO(num_particles=4, vectorize_particles=True).terms(model, guide, rows())
    assert float((terms["momentum"] + terms["momentum_end"]).detach()) == pytest.approx(0, abs=1e-12)
    assert set(terms) == {"x", "z", "z_start", "momentum", "momentum_end"}


@pytest.mark.parametrize("likelihood", [None, bernoulli])
def test_gradients_of_all_parameters_are_those_of_finite_differences(likelihood):
    """A potential without second derivatives gives the right loss and a wrong gradient."""
    model, guide = plain(likelihood=likelihood, vary=True)
    elbo = AVAE_ELBO()(model, guide)

    def loss():
        torch.manual_seed(7)
        return elbo(rows())

    parameters = [*model.parameters(), *guide.parameters()]
    found = torch.autograd.grad(loss(), parameters)
    assert len(parameters) == len(list(LinearEncoder(4, L).parameters())) + 2 + 2
    for parameter, gradient in zip(parameters, found, strict=True):
        flat = parameter.data.view(-1)
        for place in range(min(3, flat.numel())):
            value = float(flat[place])
            with torch.no_grad():
                flat[place] = value + 1e-5
                above = float(loss())
                flat[place] = value - 1e-5
                below = float(loss())
                flat[place] = value
            assert float(gradient.view(-1)[place]) == pytest.approx((above - below) / 2e-5, rel=1e-5, abs=1e-6)


def test_as_guide_of_the_avae_z_moves_and_z_aux_is_encoded():
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Linear(L, 4), latent_dim=L, rho=0.9, obs_variance=0.5)
    guide = AVAEGuide(LinearEncoder(4, L), model, dynamics=Hamiltonian(model, latent_dim=L, steps=2))
    trace = pyro.poutine.trace(guide).get_trace(rows())
    assert not torch.equal(trace.nodes["z"]["value"], trace.nodes["z_start"]["value"])
    terms = AVAE_ELBO().terms(model, guide, rows())
    assert {"x", "z", "z_aux", "z_start", "momentum", "momentum_end"} == set(terms)
    names = [name for name, _ in guide.named_parameters()]
    assert len(names) == len(set(names)) and not any("decoder" in name for name in names)
    with pytest.raises(InputError, match="joint: expected factorised beside dynamics"):
        AVAEGuide(LinearEncoder(4, L), model, joint="optimal", dynamics=Hamiltonian(model, latent_dim=L))


def test_any_model_will_do():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(L, 4))

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Laplace(torch.zeros(L), 1.0).to_event(1))
                pyro.sample("count", dist.Poisson((z @ self.weight).exp()).to_event(1), obs=x)

    torch.manual_seed(0)
    model = Own()
    guide = AmortizedGuide(LinearEncoder(4, L), dynamics=Hamiltonian(model, latent_dim=L, steps=2, step_size=0.1))
    loss = AVAE_ELBO()(model, guide)(rows())
    assert bool(loss.isfinite())
    assert all(g is not None for g in torch.autograd.grad(loss, [model.weight, guide.dynamics.raw_step]))


def test_scaled_sites_are_scaled_in_the_potential_too():
    model = VAE(nn.Linear(L, 4), latent_dim=L)
    x, z = rows(), torch.randn(3, L)

    class Scaled(nn.Module):
        def forward(self, x):
            with pyro.poutine.scale(scale=3.0):
                return model(x)

    plain, scaled = (Hamiltonian(one, latent_dim=L).log_density(x, z) for one in (model, Scaled()))
    torch.testing.assert_close(scaled, 3 * plain)


def test_a_latent_that_the_data_may_depend_on_is_refused():
    class Two(nn.Module):
        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
                w = pyro.sample("w", dist.Normal(torch.zeros(L), 1.0).to_event(1))
                pyro.sample("x", dist.Normal((z + w).repeat(1, 2), 1.0).to_event(1), obs=x)

    with pytest.raises(InputError, match="site 'w': a latent beside 'z' and before 'x', which may depend on it"):
        Hamiltonian(Two(), latent_dim=L).log_density(rows(), torch.zeros(3, L))


def test_a_z_of_another_size_is_refused():
    model = VAE(nn.Linear(L, 4), latent_dim=L)
    guide = AmortizedGuide(LinearEncoder(4, L), dynamics=Hamiltonian(model, latent_dim=3))
    with pytest.raises(InputError, match=r"latent_dim: expected \(2,\), the shape of the guide's z, got 3"):
        guide(rows())


def test_running_statistics_and_the_caller_s_state_are_left_alone():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(L, 4), nn.BatchNorm1d(4))
    model = VAE(decoder, latent_dim=L).train()
    guide = AmortizedGuide(LinearEncoder(4, L), dynamics=Hamiltonian(model, latent_dim=L)).train()
    with torch.no_grad():
        guide(rows())  # without a graph too
    assert int(decoder[1].num_batches_tracked) == 0
    AVAE_ELBO()(model, guide)(rows())
    assert int(decoder[1].num_batches_tracked) == 1
    assert all(parameter.grad is None for parameter in (*model.parameters(), *guide.parameters()))


def test_a_compiled_step_is_the_eager_one(monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)
    losses = []
    for compile in (True, False):
        model, guide = plain(likelihood=bernoulli)
        module = AVAE_ELBO(num_particles=2, vectorize_particles=True)(model, guide)
        with pyro.validation_enabled(False):
            step = compile_step(module, torch.optim.Adam(module.parameters(), lr=0.01), rows(), compile=compile)
            losses.append(torch.stack([step(rows()) for _ in range(4)]))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected an integer of at least 1"),
        ({"tempering": "hot"}, "tempering: expected one of fixed, free, none, got 'hot'"),
        ({"step_size": 0.5}, "step_size: expected a number in"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        plain(**options)


def test_without_data_there_are_no_dynamics():
    model = SelfSupervisedVAE(nn.Linear(L, 4), latent_dim=L)
    with pytest.raises(InputError, match="dynamics: move z given data"):
        SelfSupervisedGuide(LinearEncoder(4, L), model, dynamics=Hamiltonian(model, latent_dim=L))
