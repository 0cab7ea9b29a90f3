"""Joints of two encodings against their closed forms, and against a search for a better one."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_avae.coupling import FixedRho, LearnedRho, MatrixRho, PairwisePrior
from pyro_avae.errors import InputError
from pyro_avae.joint import FactorisedJoint, OptimalJoint

F64 = torch.float64
#: A few dozen float64 roundings of numbers of order 1 to 100, through 1/(1 - rho^2) up to 500.
ROUNDING = 1e-11

COUPLINGS = {
    "rho 0.975": FixedRho(0.975, latent_dim=1),
    "rho -0.4": FixedRho(-0.4, latent_dim=1),
    "rho 0": FixedRho(0.0, latent_dim=1),
    "rho 0.999": FixedRho(0.999, latent_dim=1),
    "gamma 1": PairwisePrior(1.0),
    "gamma 20": PairwisePrior(20.0),
}
#: (mu_a, s_a, mu_b, s_b), variances.
PAIRS = [(0.3, 0.5, -0.2, 0.8), (1.5, 0.01, 1.4, 0.02), (-2.0, 1.0, 2.0, 1e-4)]


def normal(loc, variance):
    return dist.Normal(torch.tensor([[loc]], dtype=F64), torch.tensor([[variance]], dtype=F64).sqrt()).to_event(1)


def prior_terms(pair, joint, coupling):
    """E log p(z, z') - E log q(z, z'), exactly: quadratic in z, so the mean of its values at mu +- sigma."""
    mu_a, s_a, mu_b, s_b = pair
    q_a, q_b = normal(mu_a, s_a), normal(mu_b, s_b)
    total = torch.zeros((), dtype=F64)
    for sign in (-1, 1):
        z = torch.tensor([[mu_a + sign * math.sqrt(s_a)]], dtype=F64)
        q, p = joint(z, q_a, q_b, coupling), coupling(z)
        prior = dist.Normal(0.0, torch.tensor(coupling.prior_scale, dtype=F64))
        kl = torch.distributions.kl_divergence(q.base_dist, p.base_dist).sum()
        total = total + 0.5 * (prior.log_prob(z).sum() - q_a.log_prob(z).sum() - kl)
    return total


def factorised_by_hand(pair, rho):
    mu_a, s_a, mu_b, s_b = pair
    rest = 1 - rho**2
    kl = 0.5 * (s_a + mu_a**2 - 1 - math.log(s_a))
    cross = -(s_b + rho**2 * s_a + (mu_b - rho * mu_a) ** 2) / (2 * rest) - 0.5 * math.log(2 * math.pi * rest)
    return -kl + cross + 0.5 * math.log(2 * math.pi * math.e * s_b)


def transport(pair, gamma):
    """WD_{2,gamma} of one dimension and E2, as the smooth encoder's paper has them."""
    mu_a, s_a, mu_b, s_b = pair
    u = math.sqrt(1 + 4 * gamma**2 * s_a * s_b)
    cost = 0.5 * gamma * ((mu_a - mu_b) ** 2 + s_a + s_b)
    entropy = 0.5 * ((u - 1) - math.log(u + 1) + math.log(2 * s_a * s_b))
    return cost - entropy - math.log(2 * math.pi) - 1, 0.5 * (mu_a**2 + mu_b**2 + s_a + s_b)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("rho", [0.975, -0.4, 0.0, 0.999])
def test_the_factorised_form(pair, rho):
    found = prior_terms(pair, FactorisedJoint(), FixedRho(rho, latent_dim=1))
    torch.testing.assert_close(found.item(), factorised_by_hand(pair, rho), rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("rho", [0.975, 0.5, 0.999])
def test_the_optimal_coupling_with_p_rho(pair, rho):
    found = prior_terms(pair, OptimalJoint(), FixedRho(rho, latent_dim=1))
    wd, e2 = transport(pair, rho / (1 - rho**2))
    by_hand = -e2 / (1 + rho) - wd - math.log(2 * math.pi) - 0.5 * math.log(1 - rho**2)
    torch.testing.assert_close(found.item(), by_hand, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("gamma", [0.01, 1.0, 20.0])
def test_the_pairwise_prior_with_its_normaliser(pair, gamma):
    found = prior_terms(pair, OptimalJoint(), PairwisePrior(gamma))
    wd, e2 = transport(pair, gamma)
    by_hand = -e2 - wd - math.log(2 * math.pi) + 0.5 * math.log(1 + 2 * gamma)
    torch.testing.assert_close(found.item(), by_hand, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("coupling", COUPLINGS.values(), ids=COUPLINGS.keys())
def test_no_gaussian_joint_with_these_marginals_is_better(pair, coupling):
    mu_a, s_a, mu_b, s_b = pair

    class With:
        def __init__(self, correlation):
            self.correlation = correlation

        def __call__(self, z, q_a, q_b, coupling):
            gain = self.correlation * math.sqrt(s_b / s_a)
            return dist.Normal(mu_b + gain * (z - mu_a), math.sqrt(s_b * (1 - self.correlation**2))).to_event(1)

    best = prior_terms(pair, OptimalJoint(), coupling)
    others = [prior_terms(pair, With(c), coupling) for c in torch.linspace(-0.999, 0.999, 81).tolist()]
    slack = ROUNDING * best.abs()
    assert all(bool(best >= other - slack) for other in others)
    assert bool(best >= prior_terms(pair, FactorisedJoint(), coupling) - slack)
    # The grid finds nearly as good a one: the best is a maximum, not only a bound.
    z = torch.tensor([[mu_a + 1.0]], dtype=F64)
    joint = OptimalJoint()(z, normal(mu_a, s_a), normal(mu_b, s_b), coupling).base_dist
    correlation = float((joint.loc - mu_b) * math.sqrt(s_a / s_b))
    torch.testing.assert_close(prior_terms(pair, With(correlation), coupling), best, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("coupling", COUPLINGS.values(), ids=COUPLINGS.keys())
def test_the_marginal_of_the_optimal_joint_is_the_encoding(coupling):
    mu_a, s_a, mu_b, s_b = PAIRS[0]
    at = [
        OptimalJoint()(torch.tensor([[z]], dtype=F64), normal(mu_a, s_a), normal(mu_b, s_b), coupling).base_dist
        for z in (mu_a, mu_a + math.sqrt(s_a))
    ]
    gain_times_sigma = float(at[1].loc - at[0].loc)
    assert float(at[0].loc) == pytest.approx(mu_b, rel=1e-14)
    assert float(at[0].scale) ** 2 + gain_times_sigma**2 == pytest.approx(s_b, rel=1e-13)


def test_the_gradient_of_the_optimal_form_is_that_of_its_closed_form():
    values = torch.tensor([0.3, 0.5, -0.2, 0.8], dtype=F64, requires_grad=True)
    mu_a, s_a, mu_b, s_b = values
    rho = 0.9
    coupling = FixedRho(rho, latent_dim=1)
    q_a, q_b = (dist.Normal(m.reshape(1, 1), s.sqrt().reshape(1, 1)).to_event(1) for m, s in ((mu_a, s_a), (mu_b, s_b)))
    total = torch.zeros((), dtype=F64)
    for sign in (-1, 1):
        z = (mu_a + sign * s_a.sqrt()).reshape(1, 1)
        q, p = OptimalJoint()(z, q_a, q_b, coupling), coupling(z)
        kl = torch.distributions.kl_divergence(q.base_dist, p.base_dist).sum()
        total = total + 0.5 * (-0.5 * z.square().sum() - q_a.log_prob(z).sum() - kl)
    gamma = rho / (1 - rho**2)
    u = torch.sqrt(1 + 4 * gamma**2 * s_a * s_b)
    wd = 0.5 * gamma * ((mu_a - mu_b) ** 2 + s_a + s_b) - 0.5 * ((u - 1) - (u + 1).log() + (2 * s_a * s_b).log())
    by_hand = -0.5 * (mu_a**2 + mu_b**2 + s_a + s_b) / (1 + rho) - wd
    found, expected = (torch.autograd.grad(value, values)[0] for value in (total, by_hand))
    torch.testing.assert_close(found, expected, rtol=ROUNDING, atol=ROUNDING)


def test_a_learned_rho_gets_a_gradient_through_the_joint():
    coupling = LearnedRho(0.8, latent_dim=1)
    prior_terms(PAIRS[0], OptimalJoint(), coupling).backward()
    assert float(coupling.raw.grad.abs()) > 0


@pytest.mark.parametrize(
    ("coupling", "posterior", "message"),
    [
        (MatrixRho(0.5 * torch.eye(1)), normal(0.0, 1.0), "one correlation per dimension, which MatrixRho has not"),
        (
            FixedRho(0.5, latent_dim=1),
            dist.MultivariateNormal(torch.zeros(1, 1), torch.eye(1)),
            "needs encodings with a diagonal covariance, .* got a MultivariateNormal",
        ),
    ],
)
def test_what_has_no_optimal_joint_is_refused(coupling, posterior, message):
    with pytest.raises(InputError, match=message):
        OptimalJoint()(torch.zeros(1, 1), posterior, posterior, coupling)
