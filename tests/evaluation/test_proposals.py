"""Importance sampling from a guide's own proposal: Hamiltonian dynamics against exact evidence and against q(z|x)."""

import math

import pytest
import torch
from torch import nn

from pyro_avae import IWAE_ELBO
from pyro_avae.data import ImageData, Split
from pyro_avae.evaluation import evaluate, likelihood, log_likelihood, log_weights
from pyro_avae.guides import AmortizedGuide, AVAEGuide, Hamiltonian, LinearEncoder
from pyro_avae.guides.hamiltonian import TEMPERINGS
from pyro_avae.models import PPCA, VAE, ExtendedVAE, bernoulli

F64 = torch.float64
D, L = 6, 2


def ppca():
    generator = torch.Generator().manual_seed(3)
    return PPCA(torch.randn(D, L, generator=generator, dtype=F64), mean=torch.zeros(D, dtype=F64), obs_variance=0.4)


def guides(model, *, widen=1.0, shift=0.0, **options):
    """A guide whose q(z|x) is off the posterior, and the same with dynamics."""
    gain, bias, tril = model.posterior_map()
    encoder = LinearEncoder.from_affine(gain, bias + shift, widen * tril).double()
    dynamics = Hamiltonian(model, latent_dim=L, **{"steps": 4, "step_size": 0.3, **options}).double()
    return AmortizedGuide(encoder), AmortizedGuide(encoder, dynamics=dynamics)


def ratios(weights, exact):
    """The weights relative to the evidence, and the standard error of their mean."""
    ratio = (weights - exact).exp()
    return ratio, ratio.std(0) / math.sqrt(len(ratio))


@pytest.mark.parametrize("tempering", TEMPERINGS)
def test_the_estimate_is_the_evidence_of_a_linear_gaussian_pair(tempering):
    model = ppca()
    _, moved = guides(model, widen=1.3, tempering=tempering)
    x = torch.randn(4, D, dtype=F64)
    evidence = model.log_evidence(x).detach()
    weights = log_weights(model, moved, x, 10_000)
    ratio, error = ratios(weights, evidence)
    assert bool((error < 0.03).all())
    assert bool(((ratio.mean(0) - 1).abs() < 4.5 * error).all())
    torch.testing.assert_close(log_likelihood(weights), evidence, rtol=0, atol=4.5 * float(error.max()))


def test_cooling_dynamics_make_up_for_a_poor_encoder():
    """At constant energy the weights would be those of q(z|x): it is the tempering that narrows what was too wide."""
    model = ppca()
    still, moved = guides(model, widen=2.5, tempering="free", step_size=0.2)
    x = torch.randn(4, D, dtype=F64)
    evidence = model.log_evidence(x).detach()
    before, after = (log_weights(model, guide, x, 4000) for guide in (still, moved))
    (poor, _), (better, error) = (ratios(weights, evidence) for weights in (before, after))
    # Such ratios vary by less than a tenth over seeds: 0.65 and 0.26.
    assert bool((better.var(0) < 0.85 * poor.var(0)).all())
    assert bool((after.var(0) < 0.5 * before.var(0)).all())
    assert bool(((better.mean(0) - 1).abs() < 4.5 * error).all())


def test_on_a_bernoulli_decoder_both_proposals_estimate_the_same():
    torch.manual_seed(0)
    model = VAE(nn.Linear(L, D).double(), latent_dim=L, likelihood=lambda logits: bernoulli(2 * logits))
    encoder = LinearEncoder(D, L).double()
    moved = AmortizedGuide(encoder, dynamics=Hamiltonian(model, latent_dim=L, steps=3, tempering="free").double())
    x = torch.rand(3, D, dtype=F64).round()
    before, after = (log_weights(model, guide, x, 10_000) for guide in (AmortizedGuide(encoder), moved))
    centre = log_likelihood(before)
    (first, error), (second, other) = (ratios(weights, centre) for weights in (before, after))
    assert bool((other < 0.05).all())
    assert bool(((first.mean(0) - second.mean(0)).abs() < 4.5 * (error**2 + other**2).sqrt()).all())
    assert not torch.equal(before, after)


def test_steps_of_no_size_leave_the_weights_of_the_encoder():
    model = ppca()
    still, moved = guides(model, widen=1.3, tempering="none")
    moved.dynamics.raw_step.data.fill_(-math.inf)
    x = torch.randn(3, D, dtype=F64)
    torch.manual_seed(1)
    weights = log_weights(model, moved, x, 50)
    torch.manual_seed(1)
    torch.testing.assert_close(weights, log_weights(model, still, x, 50), rtol=1e-12, atol=1e-12)


def test_at_constant_energy_the_weights_are_those_of_the_encoder():
    """The flow keeps p(x, z) N(rho) up to the square of its step: a fourth of the error at half of the step."""
    model = ppca()
    x = torch.randn(3, D, dtype=F64)

    def error(size, steps):
        still, moved = guides(model, widen=1.3, tempering="none", step_size=size, steps=steps)
        found = []
        for guide in (still, moved):
            torch.manual_seed(1)
            found.append(log_weights(model, guide, x, 50))
        return float((found[0] - found[1]).abs().mean())

    assert error(0.04, 10) < 0.02
    assert 3 < error(0.04, 10) / error(0.02, 20) < 5


def test_the_weights_are_those_that_training_takes_the_bound_of():
    """In expectation: log-mean-exp of S weights is the importance-weighted bound of S particles."""
    model = ppca()
    _, moved = guides(model, widen=1.3)
    x = torch.randn(1, D, dtype=F64)
    with torch.no_grad():
        bounds = torch.stack([-IWAE_ELBO(num_particles=3)(model, moved)(x) for _ in range(200)])
    estimates = log_weights(model, moved, x, 3000).view(1000, 3).logsumexp(1) - math.log(3)
    error = math.hypot(float(bounds.std()) / math.sqrt(200), float(estimates.std()) / math.sqrt(1000))
    assert abs(float(bounds.mean() - estimates.mean())) < 4.5 * error


def test_chunks_neither_mix_images_nor_lose_samples(monkeypatch):
    model = ppca()
    _, moved = guides(model)
    x = torch.randn(5, D, dtype=F64)
    monkeypatch.setattr(likelihood, "_CHUNK_VALUES", {"cpu": 2 * D})
    evidence = model.log_evidence(x).detach()
    weights = log_weights(model, moved, x, 40)
    ratio, error = ratios(weights, evidence)
    assert weights.shape == (40, 5)
    assert bool(((ratio.mean(0) - 1).abs() < 4.5 * error).all())


def test_a_guide_of_one_s_own_without_proposal_is_asked_for_its_posterior():
    class Own(nn.Module):
        def __init__(self, guide):
            super().__init__()
            self.encode, self.posterior = guide.encode, guide.posterior

    model = ppca()
    still, _ = guides(model, widen=1.3)
    x = torch.randn(3, D, dtype=F64)
    torch.manual_seed(1)
    weights = log_weights(model, Own(still), x, 10)
    torch.manual_seed(1)
    torch.testing.assert_close(weights, log_weights(model, still, x, 10), rtol=0, atol=0)


def test_evaluate_asks_the_guide_and_changes_nothing():
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Sequential(nn.Linear(L, 4), nn.Unflatten(-1, (1, 2, 2))), latent_dim=L, likelihood=bernoulli)
    asked = []

    class Watched(Hamiltonian):
        def proposal(self, x, posterior):
            asked.append(len(x))
            return super().proposal(x, posterior)

    encoder = nn.Sequential(nn.Flatten(), LinearEncoder(4, L))
    guide = AVAEGuide(encoder, model, gradient="cut", dynamics=Watched(model, latent_dim=L, steps=2))
    split = Split((torch.rand(12, 1, 2, 2) > 0.5).to(torch.uint8) * 255, {})
    measured = evaluate(model, guide, ImageData("bits", split, split, {}), num_importance_samples=50)
    assert asked == [12]
    # Sixteen images at most: about log 16 nats each.
    assert -20 < measured["log_likelihood"] < 0
    assert 0 <= measured["psis_khat"]["median"] < 10
    assert all(parameter.grad is None for parameter in (*model.parameters(), *guide.parameters()))
    assert all(parameter.requires_grad for parameter in model.parameters())
