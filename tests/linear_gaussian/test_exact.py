"""exact_bound against closed forms written here, against Monte Carlo, and what it refuses."""

import math

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.infer import RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from pyro_avae import AVAE_ELBO, auxiliary
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound, exact_second_moment, exact_terms, verify_bound
from pyro_avae.models import PPCA

# Two float64 computations of one sum of a few hundred terms of order 1 to 100, through matrices of condition number
# below 1e4: 1e4 * 2^-52 relative.
EXACT = 1e-11


def covariance_of(encoder):
    scale = encoder.log_scale.exp().diag()
    if encoder.lower is not None:
        scale = scale + encoder.lower.tril(-1)
    return scale @ scale.T


def vae_loss_by_hand(w, b, k, c, s, nu, x):
    """-ELBO of x = Wz + b + noise under q = N(Kx + c, S), from traces and determinants."""
    m = x @ k.T + c
    data_dim, latent_dim = w.shape
    residual = x - m @ w.T - b
    reconstruction = -0.5 * (residual.square().sum(1) + torch.trace(w @ s @ w.T)) / nu
    reconstruction = reconstruction - 0.5 * data_dim * torch.log(2 * math.pi * nu)
    kl = 0.5 * (torch.trace(s) + m.square().sum(1) - latent_dim - torch.logdet(s))
    return -(reconstruction - kl).sum()


def consistency_by_hand(w, b, k, c, s, nu, rho, x, *, noisy, stop):
    """E KL(q(z'|x~) || N(rho z, (1-rho^2) I)); ``stop`` puts the stop-gradients of the estimator where they belong.

    z = m + u, u ~ N(0, S);  x~ = W z + b + sqrt(nu) e, with W, b, nu constant and, if cut, z constant in it.
    """
    m = x @ k.T + c
    w, b, nu = w.detach(), b.detach(), nu.detach()
    m_in, s_in = (m.detach(), s.detach()) if stop == "cut" else (m, s)
    root, root_in = torch.linalg.cholesky(s), torch.linalg.cholesky(s_in)
    mean = (m_in @ w.T + b) @ k.T + c - rho * m
    # Coefficients of the difference mu' - rho z on u's noise and on e.
    on_u = k @ w @ root_in - rho * root
    square = mean.square().sum(1) + on_u.square().sum()
    if noisy:
        square = square + nu * k.square().sum()
    latent_dim = len(s)
    rest = 1 - rho**2
    return (
        0.5 * ((torch.trace(s) + square) / rest - latent_dim - torch.logdet(s)) + 0.5 * latent_dim * math.log(rest)
    ).sum()


def parameters_of(model, guide):
    encoder = guide.encoder
    w, b = model.decoder.weight, model.decoder.bias
    nu = torch.as_tensor(model.likelihood.obs_variance, dtype=torch.float64)
    return w, b, encoder.linear.weight, encoder.linear.bias, covariance_of(encoder), nu


def gradients(loss, modules):
    found = {n: p for module in modules for n, p in module.named_parameters()}
    grads = torch.autograd.grad(loss, list(found.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(found.items(), grads, strict=True)}


@settings(max_examples=40, deadline=None)
@given(
    data_dim=st.integers(1, 6),
    latent_dim=st.integers(1, 4),
    rho=st.floats(-0.95, 0.99),
    obs_variance=st.floats(0.05, 3.0),
    full=st.booleans(),
    seed=st.integers(0, 10**6),
    view=st.sampled_from(["sample", "mean"]),
    gradient=st.sampled_from(["through_z", "cut"]),
)
def test_avae_loss_and_gradients_equal_the_closed_form(
    pair, data_dim, latent_dim, rho, obs_variance, full, seed, view, gradient
):
    model, guide, x = pair(
        data_dim,
        latent_dim,
        seed=seed,
        rho=rho,
        obs_variance=obs_variance,
        full=full,
        learned=True,
        view=view,
        gradient=gradient,
    )
    w, b, k, c, s, nu = parameters_of(model, guide)
    by_hand = vae_loss_by_hand(w, b, k, c, s, nu, x)
    by_hand = by_hand + consistency_by_hand(w, b, k, c, s, nu, rho, x, noisy=view == "sample", stop=gradient)
    found = exact_bound(model, guide, x)
    assert found.dtype == torch.float64
    assert found.shape == ()
    size = 1 + abs(by_hand.item())
    assert abs(found.item() - by_hand.item()) <= EXACT * size / (1 - rho**2)
    expected = gradients(by_hand, (model, guide))
    for name, gradient_found in gradients(found, (model, guide)).items():
        scale = 1 + expected[name].abs().max()
        assert (gradient_found - expected[name]).abs().max() <= 10 * EXACT * scale / (1 - rho**2), name


@settings(max_examples=15, deadline=None)
@given(latent_dim=st.integers(1, 4), extra=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_exact_posterior_gives_the_log_evidence_of_scipy(latent_dim, extra, seed):
    from scipy.stats import multivariate_normal

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weight = torch.randn(latent_dim + extra, latent_dim, dtype=torch.float64)
        mean = torch.randn(latent_dim + extra, dtype=torch.float64)
        x = torch.randn(5, latent_dim + extra, dtype=torch.float64)
    ppca = PPCA(weight, mean=mean, obs_variance=0.3)
    guide = AmortizedGuide(LinearEncoder.from_affine(*ppca.posterior_map()))
    covariance = (weight @ weight.T + 0.3 * torch.eye(len(weight), dtype=torch.float64)).numpy()
    evidence = multivariate_normal(mean.numpy(), covariance).logpdf(x.numpy()).sum()
    assert abs(-exact_bound(ppca, guide, x).item() - evidence) <= 1e-9 * (1 + abs(evidence))


def test_exact_bound_leaves_the_pair_as_it_was(pair):
    model, guide, x = pair(5, 2, seed=0)
    model.float(), guide.float()
    before = {n: (id(p), p.dtype) for m in (model, guide) for n, p in m.named_parameters()}
    rng = torch.get_rng_state()
    exact_bound(model, guide, x.float()).backward()
    after = {n: (id(p), p.dtype) for m in (model, guide) for n, p in m.named_parameters()}
    assert before == after
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.get_default_dtype() is torch.float32
    assert len(pyro.get_param_store()) == 0
    assert all(p.grad is not None and p.grad.dtype is torch.float32 for p in guide.parameters())


def test_float32_parameters_are_computed_in_float64(pair):
    model, guide, x = pair(5, 2, seed=1)
    model.float(), guide.float()
    single = exact_bound(model, guide, x.float())
    double = exact_bound(model.double(), guide.double(), x.float().double())
    assert single.dtype == torch.float64
    assert abs(single.item() - double.item()) <= EXACT * abs(double.item())


@pytest.mark.parametrize(
    "elbo", [AVAE_ELBO(), Trace_ELBO(), TraceMeanField_ELBO(), TraceGraph_ELBO()], ids=lambda e: type(e).__name__
)
def test_stock_objectives_have_the_same_expectation(pair, elbo):
    model, guide, x = pair(4, 2, seed=2)
    assert exact_bound(model, guide, x, elbo).item() == exact_bound(model, guide, x).item()
    if hasattr(elbo, "differentiable_loss"):
        assert verify_bound(model, guide, elbo, x, num_samples=300).passed
    else:
        with pytest.raises(InputError, match="TraceGraph_ELBO has none"):
            verify_bound(model, guide, elbo, x)


def test_an_objective_of_another_kind_is_refused(pair):
    model, guide, x = pair(4, 2, seed=2)
    with pytest.raises(InputError, match="RenyiELBO"):
        exact_bound(model, guide, x, RenyiELBO(num_particles=2))


def test_weights_count_and_unknown_ones_are_refused(pair):
    model, guide, x = pair(4, 2, seed=3)
    plain = exact_terms(model, guide, x)
    weighted = exact_bound(model, guide, x, AVAE_ELBO(weights={"z": 4.0, "z_aux": 0.5}))
    expected = -(plain["x"] + 4 * plain["z"] + 0.5 * plain["z_aux"])
    assert abs(weighted.item() - expected.item()) <= EXACT * abs(expected.item())
    with pytest.raises(InputError, match="z_other"):
        exact_bound(model, guide, x, AVAE_ELBO(weights={"z_other": 1.0}))


def test_terms_are_those_of_the_elbo_in_expectation(pair):
    model, guide, x = pair(4, 2, seed=4)
    exact = exact_terms(model, guide, x)
    draws = [AVAE_ELBO().terms(model, guide, x) for _ in range(2000)]
    for name, value in exact.items():
        samples = torch.stack([draw[name].detach() for draw in draws])
        error = samples.std() / math.sqrt(len(samples))
        # 5 standard errors, and rounding where the term is deterministic
        assert abs(samples.mean() - value) <= 5 * error + 1e-12 * abs(value.detach()), name


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"gradient": "cut"}, {"view": "mean"}], ids=str)
def test_chains_agree_with_monte_carlo(pair, views, options):
    model, guide, x = pair(5, 2, seed=5, views=views, rho=[0.9, -0.4], learned=True, full=True, **options)
    check = verify_bound(model, guide, AVAE_ELBO(), x, num_samples=400)
    assert check.passed, str(check)
    assert {row.name for row in check.rows} == {
        "loss",
        *(f"model.{n}" for n, _ in model.named_parameters()),
        *(f"guide.{n}" for n, _ in guide.named_parameters()),
    }


def test_a_chain_is_not_parallel_samples(pair):
    """In a chain the second link starts from z_aux: with a contracting encoder its moments differ from the first's."""
    model, guide, x = pair(5, 2, seed=6, views=2)
    first = exact_second_moment(model, guide, x, "z_aux", "z_aux")
    second = exact_second_moment(model, guide, x, "z_aux_2", "z_aux_2")
    assert (first - second).abs().max() > 1e-2
    k, w, b, c = guide.encoder.linear.weight, model.decoder.weight, model.decoder.bias, guide.encoder.linear.bias
    noise = model.likelihood.obs_variance * k @ k.T + covariance_of(guide.encoder)
    m = x @ k.T + c
    at = (m.unsqueeze(-1) @ m.unsqueeze(-2)) + covariance_of(guide.encoder)
    mean = m
    for _ in range(2):
        offset = b @ k.T + c
        gain = k @ w
        cross = (gain @ mean.unsqueeze(-1)) @ offset.unsqueeze(0)
        at = gain @ at @ gain.T + cross + cross.mT + torch.outer(offset, offset) + noise
        mean = mean @ gain.T + offset
    assert (second - at).abs().max() <= EXACT * 10


def test_verify_bound_catches_a_wrong_estimator(pair):
    """The authors' mistake, an expectation over a z that did not make x~: off by many standard errors."""
    model, guide, x = pair(5, 2, seed=7)

    def factorised(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide.posterior(x))
            other = auxiliary("z_other", guide.posterior(x))
            pyro.sample("z_aux", guide.posterior(auxiliary("x_aux", model.observe_constant(other))))

    class Factorised(AVAE_ELBO):
        def differentiable_loss(self, model, guide, x):
            return super().differentiable_loss(model, factorised, x)

    check = verify_bound(model, guide, Factorised(), x, num_samples=2000)
    assert not check.passed
    assert "FAILED" in str(check)


def test_verify_bound_catches_a_wrong_gradient_with_the_right_value(pair):
    """The two gradient modes have one value: only the gradients tell them apart."""
    model, cut, x = pair(5, 2, seed=8, gradient="cut")
    through = AVAEGuide(cut.encoder, model, gradient="through_z")

    class Swapped(AVAE_ELBO):
        def differentiable_loss(self, model, guide, x):
            return super().differentiable_loss(model, through, x)

    check = verify_bound(model, cut, Swapped(), x, num_samples=2000)
    assert abs(check.rows[0].z_score) <= check.threshold
    assert not check.passed
