"""Probabilistic PCA: maximum likelihood, evidence and posterior against independent computations."""

import math

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from pyro_avae.errors import InputError
from pyro_avae.models import PPCA

F64 = torch.float64
EPS = torch.finfo(F64).eps
#: Some hundreds of roundings: eigenvalues and inverses of 6x6 matrices with condition numbers of the order of 100.
ROUNDING = 1e5 * EPS

SIZES = [(2, 1), (5, 1), (5, 4), (6, 3)]


def data(data_dim, latent_dim, *, count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(data_dim, latent_dim, dtype=F64, generator=generator)
    z = torch.randn(count, latent_dim, dtype=F64, generator=generator)
    return z @ weight.T + 0.4 * torch.randn(count, data_dim, dtype=F64, generator=generator) + 3.0


def random_ppca(data_dim, latent_dim, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(data_dim, latent_dim, dtype=F64, generator=generator)
    mean = torch.randn(data_dim, dtype=F64, generator=generator)
    return PPCA(weight, mean=mean, obs_variance=0.3, **options)


def joint(ppca):
    """Mean and covariance of (z, x), built entry by entry."""
    size, latent_dim = len(ppca.weight), ppca.latent_dim
    covariance = torch.eye(latent_dim + size, dtype=F64)
    covariance[:latent_dim, latent_dim:] = ppca.weight.T
    covariance[latent_dim:, :latent_dim] = ppca.weight
    covariance[latent_dim:, latent_dim:] = ppca.weight @ ppca.weight.T + ppca.obs_variance * torch.eye(size, dtype=F64)
    return torch.cat([torch.zeros(latent_dim, dtype=F64), ppca.mean]).detach(), covariance.detach()


@pytest.mark.parametrize(("data_dim", "latent_dim"), SIZES)
def test_the_fit_is_scikit_learns(data_dim, latent_dim):
    x = data(data_dim, latent_dim)
    ppca = PPCA.fit(x, latent_dim)
    pca = PCA(latent_dim, svd_solver="full").fit(x.numpy())
    # scikit-learn divides by N - 1, maximum likelihood by N
    ratio = (len(x) - 1) / len(x)
    covariance = (ppca.weight @ ppca.weight.T + ppca.obs_variance * torch.eye(data_dim, dtype=F64)).detach()
    expected = ratio * torch.from_numpy(pca.get_covariance())
    torch.testing.assert_close(covariance, expected, rtol=ROUNDING, atol=ROUNDING)
    assert float(ppca.obs_variance) == pytest.approx(ratio * pca.noise_variance_, rel=ROUNDING)
    torch.testing.assert_close(ppca.mean.detach(), x.mean(0), rtol=ROUNDING, atol=0)
    axes = torch.from_numpy(pca.components_)
    projected = ppca.weight.detach().T @ axes.T  # W = U (Lambda - nu)^(1/2): orthogonal columns along the axes
    torch.testing.assert_close(projected - projected.diagonal().diag(), torch.zeros_like(projected), rtol=0, atol=1e-8)


@pytest.mark.parametrize(("data_dim", "latent_dim"), SIZES)
def test_the_fit_is_a_maximum_of_the_evidence(data_dim, latent_dim):
    x = data(data_dim, latent_dim)
    fitted = PPCA.fit(x, latent_dim)
    nu = float(fitted.obs_variance)
    ppca = PPCA(fitted.weight.detach(), mean=fitted.mean.detach(), obs_variance=nu, learned_variance=True)
    best = ppca.log_evidence(x).mean()
    grads = torch.autograd.grad(best, list(ppca.parameters()))
    assert len(grads) == 3
    for grad in grads:
        torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=ROUNDING)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            moved = PPCA(
                fitted.weight.detach() + size * torch.randn(data_dim, latent_dim, dtype=F64, generator=generator),
                mean=fitted.mean.detach() + size * torch.randn(data_dim, dtype=F64, generator=generator),
                obs_variance=nu * math.exp(size * float(torch.randn((), generator=generator))),
            )
            assert bool(moved.log_evidence(x).mean() < best)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_evidence_and_posterior_are_those_of_the_joint_normal(latent_dim, more, seed):
    ppca = random_ppca(latent_dim + more, latent_dim, seed)
    mean, covariance = joint(ppca)
    x = torch.randn(3, latent_dim + more, dtype=F64, generator=torch.Generator().manual_seed(seed))
    c_zx, c_xx = covariance[:latent_dim, latent_dim:], covariance[latent_dim:, latent_dim:]
    gap = x - mean[latent_dim:]
    size = latent_dim + more
    mahalanobis = (gap * torch.linalg.solve(c_xx, gap.T).T).sum(1)
    expected = -0.5 * (mahalanobis + torch.linalg.slogdet(c_xx)[1] + size * math.log(2 * math.pi))
    torch.testing.assert_close(ppca.log_evidence(x).detach(), expected, rtol=ROUNDING, atol=ROUNDING)
    posterior = ppca.posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((3,), (latent_dim,))
    conditional_mean = gap @ torch.linalg.solve(c_xx, c_zx.T)
    conditional = torch.eye(latent_dim, dtype=F64) - c_zx @ torch.linalg.solve(c_xx, c_zx.T)
    torch.testing.assert_close(posterior.mean.detach(), conditional_mean, rtol=ROUNDING, atol=ROUNDING)
    for found in (posterior.covariance_matrix[0], ppca.posterior_covariance()):
        torch.testing.assert_close(found.detach(), conditional, rtol=ROUNDING, atol=ROUNDING)
    gain, bias, scale_tril = ppca.posterior_map()
    torch.testing.assert_close((x @ gain.T + bias).detach(), conditional_mean, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close((scale_tril @ scale_tril.T).detach(), conditional, rtol=ROUNDING, atol=ROUNDING)
    assert bool((scale_tril.triu(1) == 0).all())


def test_bayes_rule_holds_at_every_z():
    ppca = random_ppca(4, 2)
    x, z = torch.rand(3, 4, dtype=F64), torch.rand(3, 2, dtype=F64)
    trace = pyro.poutine.trace(pyro.poutine.condition(ppca, {"z": z})).get_trace(x)
    expected = ppca.log_evidence(x).sum() + ppca.posterior(x).log_prob(z).sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=ROUNDING, atol=ROUNDING)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31))
def test_the_natural_rho_is_the_encode_decode_kernel(latent_dim, more, seed):
    ppca = random_ppca(latent_dim + more, latent_dim, seed)
    with torch.no_grad():
        weight, nu = ppca.weight, float(ppca.obs_variance)
        rho = ppca.natural_rho()
        gram = weight.T @ weight
        eye = torch.eye(latent_dim, dtype=F64)
        torch.testing.assert_close(rho, gram @ torch.linalg.inv(gram + nu * eye), rtol=ROUNDING, atol=ROUNDING)
        gain, _, scale_tril = ppca.posterior_map()
        # z' = K (W z + sqrt(nu) e) + noise
        torch.testing.assert_close(rho, gain @ weight, rtol=ROUNDING, atol=ROUNDING)
        spread = scale_tril @ scale_tril.T + nu * gain @ gain.T
        torch.testing.assert_close(spread, eye - rho @ rho.T, rtol=ROUNDING, atol=ROUNDING)
        values = torch.linalg.eigvalsh(gram)
        ours = torch.linalg.eigvalsh(0.5 * (rho + rho.T))
        torch.testing.assert_close(ours, values / (values + nu), rtol=ROUNDING, atol=ROUNDING)


def test_the_natural_rho_tends_to_the_identity():
    weight = random_ppca(5, 3).weight.detach()
    smallest = float(torch.linalg.eigvalsh(weight.T @ weight)[0])
    for nu in (1e-1, 1e-4, 1e-7):
        gap = torch.eye(3, dtype=F64) - PPCA(weight, obs_variance=nu).natural_rho().detach()
        assert float(torch.linalg.matrix_norm(gap, ord=2)) == pytest.approx(nu / (smallest + nu), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_dtype_is_that_of_the_data(dtype):
    ppca = PPCA.fit(data(5, 2).to(dtype), 2)
    for value in (
        ppca.weight,
        ppca.mean,
        ppca.obs_variance,
        ppca.natural_rho(),
        ppca.log_evidence(data(5, 2).to(dtype)),
    ):
        assert value.dtype == dtype


def test_a_learned_variance_is_a_parameter():
    ppca = random_ppca(4, 2, learned_variance=True)
    (grad,) = torch.autograd.grad(ppca.log_evidence(torch.zeros(1, 4, dtype=F64)).sum(), ppca.likelihood.raw)
    assert float(grad) != 0
    assert len(list(ppca.parameters())) == 3
    assert len(list(random_ppca(4, 2).parameters())) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: PPCA(torch.eye(3), obs_variance=1.0),
            r"weight: expected shape \(D, L\) with 1 <= L < D, got \(3, 3\)",
        ),
        (lambda: PPCA(torch.zeros(2, 3), obs_variance=1.0), r"got \(2, 3\)"),
        (lambda: PPCA(torch.zeros(3), obs_variance=1.0), r"got \(3,\)"),
        (lambda: PPCA(torch.zeros(3, 0), obs_variance=1.0), r"got \(3, 0\)"),
        (
            lambda: PPCA(torch.zeros(3, 1), mean=torch.zeros(1), obs_variance=1.0),
            r"mean: expected shape \(3,\), got \(1,\)",
        ),
        (lambda: PPCA(torch.zeros(3, 1), obs_variance=0.0), "obs_variance: expected a finite number above 0"),
        (lambda: PPCA.fit(torch.rand(9, 3), 3), "latent_dim: expected 1 <= L < D = 3, got 3"),
        (lambda: PPCA.fit(torch.rand(9, 3), 4), "got 4"),
        (lambda: PPCA.fit(torch.rand(9, 3), 0), "got 0"),
        (lambda: PPCA.fit(torch.rand(9), 1), r"x: expected finite floating-point data of shape \(N, D\) .*\(9,\)"),
        (lambda: PPCA.fit(torch.rand(1, 3), 1), r"N >= 2, got shape \(1, 3\)"),
        (lambda: PPCA.fit(torch.full((9, 3), math.nan), 1), "expected finite"),
        (lambda: PPCA.fit(torch.ones(9, 3, dtype=torch.int64), 1), "of torch.int64"),
        (lambda: PPCA.fit(torch.ones(9, 3), 1), "x: its variance outside 1 directions is zero"),
        (lambda: PPCA.fit(torch.rand(3, 5), 2), "use a smaller latent_dim"),
        (lambda: PPCA.fit(torch.rand(9, 1) * torch.ones(5), 1), "the likelihood is unbounded"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        make()
