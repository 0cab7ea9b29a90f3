"""AVAE-SS: its bound, its optimum, and what it leaves alone."""

import math

import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import LinearEncoder, SelfSupervisedGuide
from pyro_avae.linear_gaussian import exact_bound, exact_terms, verify_bound
from pyro_avae.models import PPCA, SelfSupervisedVAE, bernoulli
from pyro_avae.training import fit
from pyro_avae.training.sources import NoData
from pyro_avae.views import Perturbed
from pyro_avae.worst_case import WorstCase

F64 = torch.float64
RHO = 0.8
NU = 0.5


def pair(*, full_covariance=False, **options):
    torch.manual_seed(0)
    model = SelfSupervisedVAE(nn.Linear(2, 4).double(), latent_dim=2, rho=RHO, **options)
    return model, SelfSupervisedGuide(LinearEncoder(4, 2, full_covariance=full_covariance).double(), model)


def rows(count):
    return torch.empty(count, 0, dtype=F64)


def program(x):
    """The placeholder as exact_bound takes it: of data, only the number of rows counts."""
    return torch.zeros(len(x), 1, dtype=F64)


def test_the_bound_has_its_closed_form():
    model, guide = pair(obs_variance=NU)
    x = program(rows(3))
    terms = exact_terms(model, guide, x)
    assert terms["z"] == 0
    w, b = model.decoder.weight, model.decoder.bias
    k, c = guide.encoder.linear.weight, guide.encoder.linear.bias
    s = (2 * guide.encoder.log_scale).exp()
    # mu' - rho z = (K W - rho) z + K b + c + sqrt(nu) K e
    square = (k @ w - RHO * torch.eye(2, dtype=F64)).square().sum() + (k @ b + c).square().sum() + NU * k.square().sum()
    rest = 1 - RHO**2
    kl = 0.5 * ((s.sum() + square) / rest - 2 - s.log().sum() + 2 * math.log(rest))
    torch.testing.assert_close(-terms["z_aux"], 3 * kl, rtol=1e-12, atol=0)
    assert verify_bound(model, guide, AVAE_ELBO(), x, num_samples=400).passed


def test_gradients_reach_the_encoder_alone():
    model, guide = pair(obs_variance=NU)
    loss = AVAE_ELBO()(model, guide)(rows(5))
    loss.backward()
    assert all(p.grad is None for p in model.parameters())
    assert all(float(p.grad.abs().sum()) > 0 for p in guide.parameters())


def test_bernoulli_gradients_are_those_of_a_hand_written_objective():
    model, guide = pair(likelihood=bernoulli)
    parameters = list(guide.parameters())
    torch.manual_seed(3)
    loss = AVAE_ELBO()(model, guide)(rows(5))
    torch.manual_seed(3)
    z = torch.randn(5, 2, dtype=F64)
    loc, scale = guide.encoder(torch.bernoulli(torch.sigmoid(model.decoder(z)).detach()))
    rest = 1 - RHO**2
    by_hand = 0.5 * ((scale**2 + (loc - RHO * z) ** 2) / rest - 1 - 2 * scale.log() + math.log(rest)).sum()
    torch.testing.assert_close(loss, by_hand, rtol=1e-12, atol=0)
    for found, expected in zip(*(torch.autograd.grad(v, parameters) for v in (loss, by_hand)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_its_optimum_shrinks_the_posterior_mean_by_rho_and_has_variance_one_minus_rho_squared():
    torch.manual_seed(0)
    ppca = PPCA(torch.randn(4, 2, dtype=F64), obs_variance=NU)
    model = SelfSupervisedVAE(ppca.decoder, latent_dim=2, rho=RHO, obs_variance=NU).double()
    guide = SelfSupervisedGuide(LinearEncoder(4, 2, full_covariance=True).double(), model)
    optimizer = torch.optim.LBFGS(
        guide.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = exact_bound(model, guide, program(rows(1)))
        loss.backward()
        return loss

    optimizer.step(closure)
    gain, bias, _ = ppca.posterior_map()
    found_gain, found_bias = guide.encoder.linear.weight, guide.encoder.linear.bias
    # The optimiser stops where the gradient is about the root of a rounding.
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(found_gain, RHO * gain, **close)
    torch.testing.assert_close(found_bias, RHO * bias, **close)
    _, scale = guide.encoder(torch.zeros(1, 4, dtype=F64))
    torch.testing.assert_close(scale[0] @ scale[0].mT, (1 - RHO**2) * torch.eye(2, dtype=F64), **close)


def test_training_leaves_the_decoder_bit_identical_and_needs_no_data():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    model = SelfSupervisedVAE(decoder, latent_dim=2, rho=RHO, obs_variance=NU)
    guide = SelfSupervisedGuide(LinearEncoder(4, 2), model)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    result = fit(model, guide, NoData(64), steps=200, batch_size=32, lr=0.02)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    assert model.train().training and not any(part.training for part in decoder.modules())


def test_several_links_and_particles():
    model, guide = pair(obs_variance=NU, num_views=2)
    terms = AVAE_ELBO(num_particles=3, vectorize_particles=True).terms(model, guide, rows(4))
    assert set(terms) == {"z", "z_aux", "z_aux_2"} and all(bool(t.isfinite()) for t in terms.values())


def test_a_target_without_a_prior_is_refused():
    model, guide = pair(obs_variance=NU)

    class Foreign:
        num_views = 1
        couplings = model.couplings
        observe_constant = model.observe_constant

    with pytest.raises(InputError, match="model: expected a target with a prior, Foreign has none"):
        SelfSupervisedGuide(guide.encoder, Foreign())


@pytest.mark.parametrize("view", [WorstCase(epsilon=0.1), Perturbed(torch.zeros(4))], ids=lambda v: type(v).__name__)
def test_a_view_that_starts_from_data_is_refused(view):
    model, guide = pair(obs_variance=NU)
    with pytest.raises(InputError, match=f"view: branch 'aux' has a {type(view).__name__}, which starts from data"):
        SelfSupervisedGuide(guide.encoder, model, view=view)
