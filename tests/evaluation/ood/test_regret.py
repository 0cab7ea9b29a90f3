"""Likelihood Regret against what it is on linear-Gaussian models, in float64."""

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from pyro_avae.divergence import analytic_kl
from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood import EncoderCopies, FreePosterior, likelihood_regret, sigma_points
from pyro_avae.evaluation.ood.bounds import elbo, gaussian, importance
from pyro_avae.guides import AmortizedGuide, LinearEncoder, MLPEncoder
from pyro_avae.models import PPCA, VAE, MLPDecoder, bernoulli

F64 = torch.float64
D, L, N = 6, 3, 5
#: Sums of some tens of terms of size up to 1e2.
ROUNDING = 1e4 * torch.finfo(F64).eps


def ppca(seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight, mean = torch.randn(D, L, generator=generator, dtype=F64), torch.randn(D, generator=generator, dtype=F64)
    return PPCA(weight, mean=mean, obs_variance=1.0), torch.randn(N, D, generator=generator, dtype=F64)


def wrong_guide(*, full=False):
    encoder = LinearEncoder(D, L, full_covariance=full).double()
    nn.init.normal_(encoder.log_scale, std=0.3)
    if full:
        nn.init.normal_(encoder.lower, std=0.3)
    return AmortizedGuide(encoder)


def exact_guide(model):
    return AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()).double())


def descent(rate):
    """Gradient descent converges linearly on a bound that is smooth and has no noise; Adam goes round in circles."""
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def exactly(model, guide, x, **options):
    """The regret with the exact ELBO, optimised until nothing moves."""
    exact = {"nodes": sigma_points(L, dtype=F64), "optimizer": descent(0.03), "steps": 300, "check_every": 50}
    return likelihood_regret(model, guide, x, **{**exact, **options})


@pytest.mark.parametrize("full", [False, True])
def test_with_a_full_covariance_it_is_the_divergence_from_the_posterior(full):
    model, x = ppca()
    guide = wrong_guide(full=full)
    found = exactly(model, guide, x, variant=FreePosterior(full_covariance=True))
    expected = analytic_kl(guide.posterior(x), model.posterior(x)).detach()
    assert float(expected.min()) > 1
    # gradient descent stops where the bound is flat to the last digits; its error is that of the bound, not of tau
    torch.testing.assert_close(found.regret, expected, rtol=1e-10, atol=ROUNDING)
    torch.testing.assert_close(found.after, model.log_evidence(x), rtol=1e-10, atol=ROUNDING)


def test_the_bound_before_is_the_elbo_of_the_guide():
    """log p(x) = ELBO + KL(q || p(z|x)), the last in closed form."""
    model, x = ppca()
    guide = wrong_guide()
    found = exactly(model, guide, x, steps=0)
    expected = model.log_evidence(x) - analytic_kl(guide.posterior(x), model.posterior(x)).detach()
    torch.testing.assert_close(found.before, expected, rtol=ROUNDING, atol=ROUNDING)
    assert torch.equal(found.regret, torch.zeros(N, dtype=F64))


@pytest.mark.parametrize("variant", [FreePosterior(), EncoderCopies()])
def test_an_exact_encoder_has_nothing_to_regret(variant):
    model, x = ppca()
    found = exactly(model, exact_guide(model), x, variant=variant, optimizer=None, steps=50, check_every=1)
    assert float(found.regret.max()) <= 1e-8
    assert float(found.regret.min()) >= 0


def test_a_diagonal_family_keeps_the_known_gap():
    """Its optimum has the posterior's mean and 1/Lambda_ii; (sum log Lambda_ii - log det Lambda) / 2 remains."""
    model, x = ppca()
    guide = wrong_guide()
    found = exactly(model, guide, x)
    precision = torch.linalg.inv(model.posterior_covariance().detach())
    gap = 0.5 * (precision.diagonal().log().sum() - torch.linalg.slogdet(precision)[1]).detach()
    assert float(gap) > 0.01
    expected = analytic_kl(guide.posterior(x), model.posterior(x)).detach() - gap
    torch.testing.assert_close(found.regret, expected, rtol=1e-10, atol=ROUNDING)
    # parameters are only as exact as the square root of the bound is flat
    torch.testing.assert_close(found.loc, model.posterior(x).mean, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.scale, precision.diagonal().rsqrt().expand(N, L), rtol=0, atol=1e-6)


def test_copies_of_a_linear_encoder_reach_as_far_as_free_parameters():
    """One image does not tell them apart: its location and scale can be anything in either."""
    model, x = ppca()
    guide = wrong_guide()
    free = exactly(model, guide, x).regret
    copies = exactly(model, guide, x, variant=EncoderCopies(), optimizer=descent(0.01), steps=400).regret
    torch.testing.assert_close(copies, free, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("variant", [FreePosterior(lr=0.3), EncoderCopies(lr=0.3)])
def test_more_steps_never_give_less(variant):
    """Also where the steps are far too long, and with noise in them."""
    model, x = ppca()
    guide = wrong_guide()
    found = [
        likelihood_regret(model, guide, x, variant=variant, steps=steps, check_every=1).regret for steps in range(9)
    ]
    assert all(bool((b >= a).all()) for a, b in itertools.pairwise(found))
    assert float(found[0].abs().max()) == 0
    assert bool((found[-1] > 0).all())


def test_a_constant_in_the_likelihood_changes_nothing():
    model, x = ppca()
    guide = wrong_guide()

    class Shifted(nn.Module):
        """The same model, every log p(x|z) larger by 100."""

        def __init__(self, model):
            super().__init__()
            self.model = model
            self.latent_dim, self.prior, self.decode = model.latent_dim, model.prior, model.decode

        def observe(self, z):
            distribution = self.model.observe(z)
            log_prob = distribution.log_prob
            distribution.log_prob = lambda value: log_prob(value) + 100.0
            return distribution

    plain = likelihood_regret(model, guide, x, steps=20)
    shifted = likelihood_regret(Shifted(model), guide, x, steps=20)
    torch.testing.assert_close(shifted.before, plain.before + 100, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(shifted.regret, plain.regret, rtol=1e-9, atol=1e-9)


def test_the_importance_weighted_regret_vanishes_with_more_samples():
    """Both sides tend to log p(x): what is told is of a number of samples, and the ELBO's is of none."""
    model, x = ppca()
    guide = wrong_guide()
    found = [
        float(
            likelihood_regret(
                model, guide, 2 * x, steps=200, lr=0.03, check_every=50, bound="importance", num_samples=samples
            ).regret.mean()
        )
        for samples in (1, 30, 1000)
    ]
    assert found[0] > 2 * found[1] > 4 * found[2]


def test_with_one_sample_both_bounds_are_one_estimate():
    """log p(x, z) - log q(z) has the closed divergence's mean: the two agree on average over many single samples."""
    model, x = ppca()
    loc, scale = (part.detach() for part in wrong_guide().encode(x))
    noise = torch.randn(1000, L, dtype=F64)
    single = torch.stack([importance(model, x, loc, scale, [one[None]]) for one in noise])
    exact = elbo(model, x, loc, scale, [sigma_points(L, dtype=F64)])
    # five standard errors of the mean
    assert bool(((single.mean(0) - exact).abs() <= 5 * single.std(0) / 1000**0.5).all())


def test_the_regret_of_an_image_does_not_depend_on_the_others():
    model, x = ppca()
    guide = wrong_guide()
    for variant in (FreePosterior(), EncoderCopies(lr=1e-2)):
        whole = likelihood_regret(model, guide, x, variant=variant, steps=30)
        for chunk in (1, 2):
            parts = likelihood_regret(model, guide, x, variant=variant, steps=30, chunk=chunk)
            # thirty steps that each repeat a rounding
            torch.testing.assert_close(parts.regret, whole.regret, rtol=1e-9, atol=1e-9)


def test_the_encoder_and_its_statistics_are_untouched():
    torch.manual_seed(1)
    model = VAE(MLPDecoder(2, (1, 4, 4), hidden=[8], normalization="batch", output=None), latent_dim=2,
                likelihood=bernoulli)  # fmt: skip
    guide = AmortizedGuide(MLPEncoder((1, 4, 4), 2, hidden=[8], normalization="batch"))
    guide.encode(torch.rand(20, 1, 4, 4))  # statistics that are not those of a new layer
    model.train(), guide.train()
    before = copy.deepcopy((model.state_dict(), guide.state_dict()))
    state = torch.get_rng_state()
    x = torch.rand(6, 1, 4, 4).round()
    torch.set_rng_state(state)
    for variant in (FreePosterior(), EncoderCopies(lr=1e-2)):
        assert float(likelihood_regret(model, guide, x, variant=variant, steps=20).regret.min()) > 0
    for old, new in zip(before, (model.state_dict(), guide.state_dict()), strict=True):
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert model.training and guide.training
    assert all(p.requires_grad and p.grad is None for p in [*model.parameters(), *guide.parameters()])
    assert torch.equal(state, torch.get_rng_state())


def test_a_bernoulli_pair_whose_bound_is_a_sum():
    """z is one number and the decoder linear: the best bound of a fine grid over (loc, scale), with the same noise."""
    torch.manual_seed(2)
    model = VAE(nn.Linear(1, 4).double(), latent_dim=1, likelihood=bernoulli)
    guide = AmortizedGuide(LinearEncoder(4, 1).double())
    x = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]], dtype=F64)
    # Gauss-Hermite would need its weights; 60 equally likely quantiles are a noise like any other
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(60, dtype=F64) + 0.5) / 60)[:, None]
    found = likelihood_regret(model, guide, x, nodes=quantiles, optimizer=descent(0.02), steps=250, check_every=50)

    locs, scales = torch.linspace(-2, 2, 401, dtype=F64), torch.linspace(0.3, 1.2, 181, dtype=F64)
    with torch.no_grad():
        grid = torch.stack([_bernoulli_bound(model, x, locs, scale, quantiles[:, 0]) for scale in scales])
    best = grid.amax((0, 2))
    # the grid's own steps are 0.01 and 0.005: below its optimum by at most curvature * step^2 / 8 < 1e-4
    assert bool((found.after >= best - 1e-9).all())
    torch.testing.assert_close(found.after, best, rtol=0, atol=1e-4)


def _bernoulli_bound(model, x, locs, scale, noise):
    """``(B, len(locs))``: the ELBO of logits a z + b, written out."""
    z = locs[:, None] + scale * noise
    logits = z[..., None] * model.decoder.weight[:, 0] + model.decoder.bias
    log_p = (x[:, None, None] * logits - torch.log1p(logits.exp())).sum(-1).mean(-1)
    return log_p - 0.5 * (locs**2 + scale**2 - 1 - 2 * scale.log())


def test_a_pair_of_ones_own():
    """Anything with observe, encode and parameters: no prior (N(0, I) then), an encoder that is no submodule's name."""

    class Mine(nn.Module):
        latent_dim = 2

        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2, 5).double()

        def observe(self, z):
            import pyro.distributions as dist

            return dist.Laplace(self.net(z), 0.5).to_event(1)

    class MyGuide(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(5, 2).double(), nn.Linear(5, 2).double()

        def encode(self, x):
            return self.first(x), self.second(x).exp()

    x = torch.randn(3, 5, dtype=F64)
    for variant in (FreePosterior(), EncoderCopies(lr=1e-2)):
        found = likelihood_regret(Mine(), MyGuide(), x, variant=variant, steps=50)
        assert found.regret.shape == (3,)
        assert float(found.regret.min()) > 0


@pytest.mark.cuda
@pytest.mark.parametrize("variant", [FreePosterior(), EncoderCopies(lr=1e-2)])
def test_a_gpu_finds_what_a_cpu_finds(variant):
    """The noise is drawn on the CPU for both; sums in another order."""
    model, x = ppca()
    guide = wrong_guide()
    here = likelihood_regret(model, guide, x, variant=variant, steps=30)
    there = likelihood_regret(model.cuda(), guide.cuda(), x, variant=variant, steps=30)
    torch.testing.assert_close(there.regret, here.regret, rtol=1e-9, atol=1e-9)


def test_progress_counts_images():
    model, x = ppca()
    told = []
    likelihood_regret(model, wrong_guide(), x, steps=1, chunk=2, progress=lambda *what: told.append(what))
    assert told == [("likelihood regret", done, N) for done in (2, 4, 5)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps: expected at least 0, got -1"),
        ({"num_samples": 0}, "num_samples: expected at least 1, got 0"),
        ({"step_samples": 0}, "step_samples: expected at least 1, got 0"),
        ({"check_every": 0}, "check_every: expected at least 1, got 0"),
        ({"chunk": 0}, "chunk: expected at least 1, got 0"),
        ({"lr": 0.0}, "lr: expected a step size above 0, got 0.0"),
        ({"bound": "iwae"}, "bound: expected one of elbo, importance, got 'iwae'"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    model, x = ppca()
    with pytest.raises(InputError, match=rf"\A{message}\Z"):
        likelihood_regret(model, wrong_guide(), x, **options)


def test_no_images_are_refused():
    model, x = ppca()
    with pytest.raises(InputError, match="images: expected at least 1"):
        likelihood_regret(model, wrong_guide(), x[:0])


def test_gaussians_of_either_kind():
    loc, scale = torch.zeros(2, 3), torch.rand(2, 3) + 0.5
    assert float(kl_divergence(gaussian(loc, scale), gaussian(loc, scale)).max()) == 0
    full = gaussian(loc, torch.diag_embed(scale))
    torch.testing.assert_close(full.log_prob(loc + 1), gaussian(loc, scale).log_prob(loc + 1))
