"""The encode-decode chain of probabilistic PCA is an autoregression known in closed form."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pyro_avae.chain import iterated_reconstructions, lag1_matrix, run_chain, summarize_chain
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder, MLPEncoder
from pyro_avae.models import PPCA, VAE, ExtendedVAE, MLPDecoder, bernoulli


def exact_pair(obs_variance: float = 0.8) -> tuple[PPCA, AmortizedGuide]:
    weight = torch.randn(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    model = PPCA(weight, mean=torch.arange(6, dtype=torch.float64), obs_variance=obs_variance)
    return model, AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()).double())


def transition(model: PPCA) -> np.ndarray:
    """M = W'W (W'W + νI)^-1, which is I − S."""
    gram = (model.weight.T @ model.weight).detach().numpy()
    return gram @ np.linalg.inv(gram + float(model.obs_variance.detach()) * np.eye(len(gram)))


def latents(chain) -> np.ndarray:
    return chain["posterior"]["z"].values


def chain_errors(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over independent chains (the first axis) and its standard error."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def test_the_exact_chain_is_the_ar1_with_matrix_i_minus_s() -> None:
    model, guide = exact_pair()
    expected = transition(model)
    identity = np.eye(2)
    np.testing.assert_allclose(expected, identity - model.posterior_covariance().detach().numpy(), atol=1e-12)
    chain = run_chain(model, guide, num_chains=400, num_draws=400)
    z = latents(chain)
    # E z_{t+1} z_t' = M and E z z' = I in the stationary chain; every chain is one independent estimate of each.
    lagged, lagged_error = chain_errors(np.einsum("cti,ctj->cij", z[:, 1:], z[:, :-1]) / (z.shape[1] - 1))
    covariance, covariance_error = chain_errors(np.einsum("cti,ctj->cij", z, z) / z.shape[1])
    mean, mean_error = chain_errors(z.mean(1))
    assert covariance_error.max() < 0.02
    assert np.all(np.abs(lagged - expected) < 4.5 * lagged_error)
    assert np.all(np.abs(covariance - identity) < 4.5 * covariance_error)
    assert np.all(np.abs(mean) < 4.5 * mean_error)
    assert np.all(np.abs(lag1_matrix(chain) - expected) < 4.5 * lagged_error)

    summary = summarize_chain(chain)
    assert np.all(np.abs(summary.lag1 - np.diag(expected)) < 4.5 * summary.lag1_error)
    assert np.all(summary.lag1_error < 0.01)
    assert summary.lag1_pooled == pytest.approx(np.trace(expected) / 2, abs=4.5 * float(summary.lag1_error.max()))
    assert np.all(np.abs(summary.variance - 1.0) < 4.5 * np.diag(covariance_error))
    # Half chains of 200 draws whose means spread by τ / 200, τ = (1 + r) / (1 − r): R-hat² = 1 + τ / 200.
    spread = (1 + summary.lag1) / (1 - summary.lag1) / 200
    np.testing.assert_allclose(summary.r_hat, np.sqrt(1 + spread), atol=0.02)


def test_effective_sample_size_is_that_of_the_autoregression() -> None:
    weight = torch.zeros(3, 1, dtype=torch.float64)
    weight[0] = 1.0
    model = PPCA(weight, obs_variance=1.0)
    guide = AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()).double())
    summary = summarize_chain(run_chain(model, guide, num_chains=20, num_draws=5000), rho=0.5)
    # One dimension with correlation 1/2: the sum of its autocorrelations leaves (1 − r) / (1 + r) of the draws.
    assert summary.rho.tolist() == [0.5]
    assert abs(float(summary.lag1[0]) - 0.5) < 4.5 * float(summary.lag1_error[0])
    assert float(summary.ess[0]) == pytest.approx(20 * 5000 / 3, rel=0.05)


def test_the_mean_view_shrinks_the_variance_as_predicted() -> None:
    model, guide = exact_pair()
    matrix = transition(model)
    # z' = M z + N(0, S): the stationary covariance solves V = M V M + S, and M commutes with S.
    values, vectors = np.linalg.eigh(matrix)
    expected = vectors @ np.diag((1 - values) / (1 - values**2)) @ vectors.T
    z = latents(run_chain(model, guide, num_chains=300, num_draws=200, warmup=100, view="mean"))
    covariance, error = chain_errors(np.einsum("cti,ctj->cij", z, z) / z.shape[1])
    assert np.all(np.abs(covariance - expected) < 4.5 * error)
    assert np.all(np.diag(expected) < 1 - 10 * np.diag(error)), "the two views must be told apart"


def test_chains_start_at_their_images_and_forget_them() -> None:
    model, guide = exact_pair(obs_variance=0.01)
    far = model.decode(torch.tensor([[50.0, 0.0], [0.0, -50.0]], dtype=torch.float64)).detach()
    chain = run_chain(model, guide, start=far, num_draws=5)
    np.testing.assert_allclose(latents(chain)[:, 0], [[50.0, 0.0], [0.0, -50.0]], atol=1.0)
    model, guide = exact_pair()
    late = latents(run_chain(model, guide, start=far, num_draws=2, warmup=200))
    assert np.abs(late).max() < 6.0
    assert chain["posterior"].attrs["start"] == "images"


def test_warmup_drops_the_first_draws_of_the_same_run() -> None:
    model, guide = exact_pair()
    whole = latents(run_chain(model, guide, num_chains=3, num_draws=10, seed=8))
    rest = latents(run_chain(model, guide, num_chains=3, num_draws=6, warmup=4, seed=8))
    assert np.array_equal(whole[:, 4:], rest)
    assert not np.array_equal(whole, latents(run_chain(model, guide, num_chains=3, num_draws=10, seed=9)))


def test_it_is_an_arviz_object_and_leaves_nothing_behind() -> None:
    model, guide = exact_pair()
    model.train()
    before = torch.get_rng_state()
    chain = run_chain(model, guide, num_chains=2, num_draws=8, seed=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz
    assert dict(chain["posterior"].sizes) == {"chain": 2, "draw": 8, "latent": 2}
    assert {key: chain["posterior"].attrs[key] for key in ("view", "seed", "warmup", "start")} == {
        "view": "sample",
        "seed": 3,
        "warmup": 0,
        "start": "prior",
    }
    assert "z" in arviz.ess(chain)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_images_of_any_likelihood_run() -> None:
    shape = (1, 4, 4)
    decoder = MLPDecoder(3, shape, hidden=[8], output=None)
    model = VAE(decoder, latent_dim=3, likelihood=bernoulli)
    guide = AmortizedGuide(MLPEncoder(shape, 3, hidden=[8]))
    chain = run_chain(model, guide, start=torch.rand(5, *shape).round(), num_draws=6)
    assert latents(chain).shape == (5, 6, 3)
    images = iterated_reconstructions(model, guide, torch.rand(2, *shape), 3, view="sample")
    assert set(images[1:].unique().tolist()) <= {0.0, 1.0}


def test_iterated_reconstructions_are_repeated_projections() -> None:
    model, guide = exact_pair()
    x = torch.randn(4, 6, dtype=torch.float64)
    images = iterated_reconstructions(model, guide, x, 3)
    weight, mean = model.weight.detach(), model.mean.detach()
    matrix = torch.as_tensor(transition(model))
    z = (x - mean) @ torch.linalg.pinv(weight).T  # decode(M z) is the reconstruction; each pass applies M once more
    assert images.shape == (4, 4, 6)
    assert torch.equal(images[0], x)
    for step in (1, 2, 3):
        expected = z @ torch.linalg.matrix_power(matrix, step).T @ weight.T + mean
        torch.testing.assert_close(images[step], expected)


def test_sampled_reconstructions_differ_by_seed_only() -> None:
    model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2, rho=0.9, obs_variance=0.3)
    guide = AVAEGuide(LinearEncoder(5, 2), model)
    x = torch.randn(3, 5)
    one, same, other = (iterated_reconstructions(model, guide, x, 2, sample_latent=True, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(iterated_reconstructions(model, guide, x, 0), x[None])


def test_summary_of_draws_written_out_by_hand() -> None:
    model, guide = exact_pair()
    chain = run_chain(model, guide, num_chains=2, num_draws=6)
    z = latents(chain)
    centred = z - z.mean((0, 1))
    now, after = centred[:, :-1].reshape(-1, 2), centred[:, 1:].reshape(-1, 2)
    expected = 2 * (now * after).sum(0) / ((now**2).sum(0) + (after**2).sum(0))
    summary = summarize_chain(chain, rho=torch.tensor([0.9, 0.8]))
    np.testing.assert_allclose(summary.lag1, expected, rtol=1e-12)
    np.testing.assert_allclose(summary.mean, z.mean((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(summary.variance, z.var((0, 1)), rtol=1e-12)
    np.testing.assert_allclose(summary.rho, [0.9, 0.8], rtol=1e-6)


def test_bad_requests_are_named() -> None:
    model, guide = exact_pair()
    with pytest.raises(InputError, match="view: expected one of sample, mean, got 'noisy'"):
        run_chain(model, guide, view="noisy")
    with pytest.raises(InputError, match="num_chains: expected at least 1, got 0"):
        run_chain(model, guide, num_chains=0)
    with pytest.raises(InputError, match="num_draws: expected at least 2, got 1"):
        run_chain(model, guide, num_draws=1)
    with pytest.raises(InputError, match="warmup: expected at least 0, got -1"):
        run_chain(model, guide, warmup=-1)
    with pytest.raises(InputError, match="steps: expected at least 0, got -1"):
        iterated_reconstructions(model, guide, torch.zeros(1, 6, dtype=torch.float64), -1)
    with pytest.raises(InputError, match="at least 4 draws"):
        summarize_chain(run_chain(model, guide, num_draws=3))
    with pytest.raises(InputError, match=r"rho: expected a number or 2 of them, .* got shape \(3,\)"):
        summarize_chain(run_chain(model, guide, num_draws=8), rho=[0.1, 0.2, 0.3])
