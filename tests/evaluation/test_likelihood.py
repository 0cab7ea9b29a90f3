"""Importance weights against exact evidence, and k-hat against known tails."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation import likelihood, log_likelihood, log_weights, psis_khat
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import PPCA, VAE, ExtendedVAE, bernoulli


def exact_guide(model: PPCA, *, widen: float = 1.0) -> AmortizedGuide:
    """The exact posterior, or one whose standard deviations are ``widen`` times too large."""
    gain, bias, tril = model.posterior_map()
    return AmortizedGuide(LinearEncoder.from_affine(gain, bias, widen * tril).double())


def ppca(data_dim: int, latent_dim: int, seed: int, obs_variance: float = 0.4) -> PPCA:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(data_dim, latent_dim, generator=generator, dtype=torch.float64)
    return PPCA(weight, mean=weight[:, 0].clone(), obs_variance=obs_variance)


@settings(max_examples=25, deadline=None)
@given(
    data_dim=st.integers(2, 20),
    latent_dim=st.integers(1, 5),
    obs_variance=st.floats(0.05, 5.0),
    num_samples=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_with_the_exact_posterior_every_weight_is_the_evidence(
    data_dim: int, latent_dim: int, obs_variance: float, num_samples: int, seed: int
) -> None:
    model = ppca(data_dim, min(latent_dim, data_dim - 1), seed, obs_variance)
    x = 3.0 * torch.randn(4, data_dim, dtype=torch.float64)
    weights = log_weights(model, exact_guide(model), x, num_samples)
    evidence = model.log_evidence(x)
    torch.testing.assert_close(weights, evidence.expand(num_samples, 4), rtol=1e-9, atol=1e-8)
    torch.testing.assert_close(log_likelihood(weights), evidence, rtol=1e-9, atol=1e-8)


def test_with_another_posterior_the_weights_average_to_the_evidence() -> None:
    model = ppca(6, 2, seed=3)
    x = torch.randn(5, 6, dtype=torch.float64)
    weights = log_weights(model, exact_guide(model, widen=1.5), x, 40_000)
    evidence = model.log_evidence(x).detach()
    ratio = (weights - evidence).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert bool((error < 0.02).all())
    assert bool(((ratio.mean(0) - 1.0).abs() < 4.5 * error).all())
    torch.testing.assert_close(log_likelihood(weights), evidence, rtol=0, atol=4.5 * float(error.max()))
    # One weight at a time is the plain bound, below the evidence by KL(q ‖ posterior), here the same for every image.
    gap = 0.5 * 2 * (1.5**2 - 1 - math.log(1.5**2))
    shortfall = evidence - weights.mean(0)
    assert bool(((shortfall - gap).abs() < 4.5 * weights.std(0) / math.sqrt(len(weights))).all())


def test_a_bernoulli_evidence_matches_quadrature() -> None:
    decoder = nn.Linear(1, 4).double()
    model = VAE(decoder, latent_dim=1, likelihood=lambda logits: bernoulli(2.0 * logits))
    guide = AmortizedGuide(LinearEncoder(4, 1).double())
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
    nodes, masses = np.polynomial.hermite_e.hermegauss(80)
    z = torch.as_tensor(nodes)[:, None]
    with torch.no_grad():
        logits = 2.0 * decoder(z)[:, None, :]
        scores = (x * logits - nn.functional.softplus(logits)).sum(-1)  # log Bernoulli, written out
        exact = torch.logsumexp(scores + torch.as_tensor(np.log(masses / masses.sum()))[:, None], 0)
    weights = log_weights(model, guide, x, 20_000)
    ratio = (weights - exact).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert bool((error < 0.05).all())
    assert bool(((ratio.mean(0) - 1.0).abs() < 4.5 * error).all())


def test_chunks_neither_mix_images_nor_lose_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ppca(6, 2, seed=5)
    x = torch.randn(7, 6, dtype=torch.float64)
    monkeypatch.setattr(likelihood, "_CHUNK_VALUES", {"cpu": 6 * 3})  # three images at a time, one sample at a time
    weights = log_weights(model, exact_guide(model), x, 5)
    torch.testing.assert_close(weights, model.log_evidence(x).expand(5, 7), rtol=1e-9, atol=1e-8)
    monkeypatch.setattr(likelihood, "_CHUNK_VALUES", {"cpu": 1})  # less than one image
    assert log_weights(model, exact_guide(model), x, 5).shape == (5, 7)


def test_the_extended_target_has_no_part_in_it() -> None:
    decoder, encoder = nn.Linear(2, 5), LinearEncoder(5, 2)
    plain = VAE(decoder, latent_dim=2, obs_variance=0.3)
    extended = ExtendedVAE(decoder, latent_dim=2, rho=0.9, obs_variance=0.3, num_views=2)
    x = torch.randn(3, 5)
    torch.manual_seed(1)
    ours = log_weights(extended, AVAEGuide(encoder, extended), x, 10)
    torch.manual_seed(1)
    torch.testing.assert_close(ours, log_weights(plain, AmortizedGuide(encoder), x, 10), rtol=0, atol=0)


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
def test_khat_of_pareto_weights_is_their_index(k: float) -> None:
    samples = 20_000
    uniform = torch.rand(samples, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    khat = psis_khat(-k * uniform.log())
    tail = 3 * math.sqrt(samples)  # the points that the fit sees; its error is (1 + k) / sqrt(tail)
    assert float((khat - k).abs().max()) < 4 * (1 + k) / math.sqrt(tail)


def test_khat_tells_a_narrow_posterior_from_a_wide_one() -> None:
    model = ppca(6, 1, seed=2)
    x = torch.randn(20, 6, dtype=torch.float64)
    # For a Gaussian of s times the right width, w ~ exp(u² (1 − s²) / 2) with u standard normal: k = 1 − s².
    narrow = psis_khat(log_weights(model, exact_guide(model, widen=0.3), x, 4000))
    wide = psis_khat(log_weights(model, exact_guide(model, widen=1.5), x, 4000))
    assert float(narrow.median()) > 0.7
    assert float(wide.max()) < 0.5


def test_constant_weights_have_no_tail_and_broken_ones_no_trust() -> None:
    weights = torch.randn(200, 4)
    weights[:, 0] = -1234.5 + 1e-5 * torch.randn(200)
    weights[:, 1] = -torch.inf
    weights[3, 2] = torch.nan
    khat = psis_khat(weights)
    assert khat[0] == 0.0
    assert khat[1] == torch.inf
    assert khat[2] == torch.inf
    assert math.isfinite(float(khat[3]))
    assert float(khat[3]) == pytest.approx(float(psis_khat(weights[:, 3:])[0]))


def test_an_image_whose_tail_has_no_fit_leaves_the_others_their_median() -> None:
    weights = torch.randn(40, 5)
    weights[:, 0] = -750.0 * torch.arange(40).clamp(max=5)  # one weight counts, the others are zero next to it
    khat = psis_khat(weights)
    assert khat[0] == torch.inf
    assert bool(khat[1:].isfinite().all())
    assert math.isfinite(float(khat.median()))


def test_too_few_samples_are_refused() -> None:
    model = ppca(3, 1, seed=0)
    with pytest.raises(InputError, match="at least 1 importance sample, got 0"):
        log_weights(model, exact_guide(model), torch.zeros(1, 3, dtype=torch.float64), 0)
    with pytest.raises(InputError, match="at least 30 importance samples, got 29"):
        psis_khat(torch.randn(29, 2))
    least = psis_khat(torch.randn(30, 50))
    assert least.shape == (50,)
    assert bool(least.isfinite().all())
