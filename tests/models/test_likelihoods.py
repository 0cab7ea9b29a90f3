"""Likelihoods, against their densities by hand and by numeric integration."""

import math

import pyro
import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.models import VAE, Gaussian, bernoulli, continuous_bernoulli, cross_entropy

F64 = torch.float64
#: Some tens of roundings.
ROUNDING = 1e3 * torch.finfo(F64).eps


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("nu", [1e-6, 0.05, 0.5, 1, 30.0, 1e4])
def test_the_gaussian_has_variance_nu(nu, learned):
    likelihood = Gaussian(obs_variance=nu, learned=learned)
    out, x = torch.rand(3, 2, dtype=F64), torch.rand(3, 2, dtype=F64)
    log_prob = likelihood(out).log_prob(x)
    expected = -((x - out) ** 2) / (2 * nu) - 0.5 * math.log(2 * math.pi * nu)
    # a learned nu is kept in float32, as the softplus of a number of size up to max(nu, 1, log(1/nu)) < 14 max(nu, 1)
    rounding = 100 * torch.finfo(torch.float32).eps if learned else ROUNDING
    torch.testing.assert_close(log_prob.detach(), expected, rtol=rounding, atol=rounding * float(expected.abs().max()))
    assert [name for name, _ in likelihood.named_parameters()] == (["raw"] if learned else [])
    assert float(torch.as_tensor(likelihood.obs_variance, dtype=F64).detach()) == pytest.approx(nu, rel=rounding)


def test_the_gradient_of_a_learned_nu():
    likelihood = Gaussian(obs_variance=0.5, learned=True).double()
    out, x = torch.rand(3, 2, dtype=F64), torch.rand(3, 2, dtype=F64)
    (grad,) = torch.autograd.grad(likelihood(out).log_prob(x).sum(), likelihood.raw)
    nu = likelihood.obs_variance.detach()
    # d nu / d raw = sigmoid(raw) = 1 - exp(-softplus(raw)), and nu = 1e-8 + softplus(raw)
    expected = (((x - out) ** 2 / (2 * nu**2) - 1 / (2 * nu)).sum()) * (1 - torch.exp(1e-8 - nu))
    torch.testing.assert_close(grad, expected, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("raw", [-1e4, -100.0, 100.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("start", [1e-10, 0.5])
def test_a_learned_nu_far_out_keeps_its_floor(raw, dtype, start):
    likelihood = Gaussian(obs_variance=start, learned=True).to(dtype)
    with torch.no_grad():
        likelihood.raw.fill_(raw)
    log_prob = likelihood(torch.zeros(1, dtype=dtype)).log_prob(torch.ones(1, dtype=dtype))
    (grad,) = torch.autograd.grad(log_prob.sum(), likelihood.raw)
    assert bool(log_prob.isfinite().all())
    assert bool(grad.isfinite())
    floor = min(1e-8, start / 2)
    assert float(likelihood.obs_variance.detach()) == pytest.approx(max(raw, floor), rel=1e-6)


@pytest.mark.parametrize("nu", [1e-12, 1e-8, 1.5e-8, 0.1, 0.3, 7.0])
def test_a_learned_nu_made_in_float64_starts_exactly_there(nu):
    likelihood = Gaussian(obs_variance=nu, learned=True, dtype=F64)
    assert likelihood.raw.dtype is F64
    # d nu / nu = |raw| d raw / raw at most, and |raw| is below max(nu, log(1/nu)) < 30
    assert float(likelihood.obs_variance.detach()) == pytest.approx(nu, rel=60 * torch.finfo(F64).eps, abs=0)


def test_the_bernoulli_by_hand():
    logits, x = torch.randn(3, 4, dtype=F64), torch.randint(0, 2, (3, 4)).double()
    probability = 1 / (1 + torch.exp(-logits))
    expected = x * probability.log() + (1 - x) * (1 - probability).log()
    torch.testing.assert_close(bernoulli(logits).log_prob(x), expected, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(bernoulli(logits).mean, probability, rtol=ROUNDING, atol=ROUNDING)


def test_the_cross_entropy_takes_grey_pixels_and_is_the_bernoulli_of_binary_ones():
    logits, x = torch.randn(3, 4, dtype=F64), torch.rand(3, 4, dtype=F64)
    likelihood = cross_entropy(logits)
    expected = -torch.nn.functional.binary_cross_entropy(logits.sigmoid(), x, reduction="none")
    torch.testing.assert_close(likelihood.log_prob(x), expected, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(likelihood.log_prob(x.round()), bernoulli(logits).log_prob(x.round()))
    torch.testing.assert_close(likelihood.mean, logits.sigmoid(), rtol=ROUNDING, atol=ROUNDING)
    assert likelihood.expand((2, 3, 4)).log_prob(x).shape == (2, 3, 4)
    with pyro.validation_enabled(True):
        VAE(torch.nn.Linear(2, 5).double(), latent_dim=2, likelihood=cross_entropy)(torch.rand(3, 5, dtype=F64))


@pytest.mark.parametrize("logit", [-8.0, -1.0, 0.3, 5.0])
def test_the_continuous_bernoulli_is_normalised(logit):
    """Simpson's rule on 2001 points: an error of h^4/180 |f''''| < 1e-13 * 8^4 * |f|."""
    likelihood = continuous_bernoulli(torch.tensor(logit, dtype=F64))
    grid = torch.linspace(0, 1, 2001, dtype=F64)
    density = likelihood.log_prob(grid).exp()
    weights = torch.full_like(grid, 2 / 3) + (torch.arange(2001) % 2) * 2 / 3
    weights[0] = weights[-1] = 1 / 3
    assert float((weights * density).sum() / 2000) == pytest.approx(1.0, abs=1e-8)
    assert float((weights * density * grid).sum() / 2000) == pytest.approx(float(likelihood.mean), abs=1e-8)
    log_ratio = likelihood.log_prob(torch.ones((), dtype=F64)) - likelihood.log_prob(torch.zeros((), dtype=F64))
    assert float(log_ratio) == pytest.approx(logit, rel=ROUNDING)


@pytest.mark.parametrize("value", [0.0, -0.5, math.nan, math.inf, -math.inf, "1", None, True, torch.tensor(0.5)])
@pytest.mark.parametrize("learned", [False, True])
def test_a_variance_that_is_none_is_refused(value, learned):
    with pytest.raises(InputError, match=r"\Aobs_variance: expected a [^\n]*number above 0, got [^\n]+\Z"):
        Gaussian(obs_variance=value, learned=learned)
