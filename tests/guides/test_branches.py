"""Extended targets with views near the data, several branches, chains and noisy input: exact, and per gradient."""

import copy
import math

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.coupling import FixedRho, NaturalRho, PairwisePrior
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound, exact_terms, verify_bound
from pyro_avae.models import PPCA, VAE, ExtendedVAE, bernoulli
from pyro_avae.views import DecoderSample, Perturbed
from pyro_avae.worst_case import WorstCase

F64 = torch.float64
#: A few hundred float64 roundings of numbers of order 100, through 1/(1 - rho^2) up to 10.
ROUNDING = 1e-11
DELTA = torch.linspace(-0.1, 0.1, 4, dtype=F64)
RHO = 0.8


def parts(seed=0):
    torch.manual_seed(seed)
    decoder, encoder = nn.Linear(2, 4).double(), LinearEncoder(4, 2).double()
    nn.init.normal_(encoder.log_scale, mean=-0.5, std=0.3)
    return decoder, encoder, torch.rand(3, 4, dtype=F64)


def se_pair(rho=RHO, joint="factorised", **options):
    decoder, encoder, x = parts()
    model = ExtendedVAE(decoder, latent_dim=2, rho={"smooth": rho}, obs_variance=0.5, **options)
    return model, AVAEGuide(encoder, model, view=Perturbed(DELTA), joint=joint), x


def se_avae_pair(joint="factorised", **options):
    decoder, encoder, x = parts()
    model = ExtendedVAE(decoder, latent_dim=2, rho={"aux": RHO, "smooth": RHO}, obs_variance=0.5, **options)
    views = {"aux": "sample", "smooth": Perturbed(DELTA)}
    return model, AVAEGuide(encoder, model, view=views, joint={"aux": "factorised", "smooth": joint}), x


def moments(guide, x):
    loc, scale = guide.encode(x)
    loc_b, scale_b = guide.encode(x + DELTA)
    return loc, scale**2, loc_b, scale_b**2


def smooth_term_by_hand(guide, x, joint):
    """What z_smooth adds to the plain ELBO."""
    mu_a, s_a, mu_b, s_b = moments(guide, x)
    rest = 1 - RHO**2
    if joint == "factorised":
        each = (
            -(s_b + RHO**2 * s_a + (mu_b - RHO * mu_a) ** 2) / (2 * rest)
            - 0.5 * math.log(2 * math.pi * rest)
            + 0.5 * (2 * math.pi * math.e * s_b).log()
        )
        return each.sum()
    gamma = RHO / rest
    u = (1 + 4 * gamma**2 * s_a * s_b).sqrt()
    wd = gamma / 2 * ((mu_a - mu_b) ** 2 + s_a + s_b) - 0.5 * (u - 1 - (u + 1).log() + (2 * s_a * s_b).log())
    wd = wd - math.log(2 * math.pi) - 1
    e2 = 0.5 * (mu_a**2 + mu_b**2 + s_a + s_b)
    pair = -e2 / (1 + RHO) - wd - math.log(2 * math.pi) - 0.5 * math.log(rest)
    kl = 0.5 * (mu_a**2 + s_a - 1 - s_a.log())
    return (pair + kl).sum()


def gradients(loss, *modules):
    parameters = [p for module in modules for p in module.parameters()]
    return torch.autograd.grad(loss, parameters, allow_unused=True)


@pytest.mark.parametrize("joint", ["factorised", "optimal"])
def test_the_smooth_encoder_has_its_closed_form_and_gradient(joint):
    model, guide, x = se_pair(joint=joint)
    exact = exact_bound(model, guide, x)
    plain = exact_bound(VAE(model.decoder, latent_dim=2, obs_variance=0.5), AmortizedGuide(guide.encoder), x)
    by_hand = plain - smooth_term_by_hand(guide, x, joint)
    torch.testing.assert_close(exact, by_hand, rtol=ROUNDING, atol=ROUNDING)
    for found, expected in zip(gradients(exact, model, guide), gradients(by_hand, model, guide), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_pairwise_prior_has_its_closed_form():
    gamma = 1.5
    model, guide, x = se_pair(rho=PairwisePrior(gamma), joint="optimal")
    exact = exact_bound(model, guide, x)
    mu_a, s_a, mu_b, s_b = moments(guide, x)
    u = (1 + 4 * gamma**2 * s_a * s_b).sqrt()
    wd = gamma / 2 * ((mu_a - mu_b) ** 2 + s_a + s_b) - 0.5 * (u - 1 - (u + 1).log() + (2 * s_a * s_b).log())
    e2 = 0.5 * (mu_a**2 + mu_b**2 + s_a + s_b)
    prior = (-e2 - wd + 1 + 0.5 * math.log(1 + 2 * gamma)).sum()
    reconstruction = exact_terms(VAE(model.decoder, latent_dim=2, obs_variance=0.5), AmortizedGuide(guide.encoder), x)[
        "x"
    ]
    torch.testing.assert_close(exact, -(reconstruction + prior), rtol=ROUNDING, atol=ROUNDING)
    assert float(model.prior(x).variance[0]) == pytest.approx((1 + gamma) / (1 + 2 * gamma))


def test_the_optimal_joint_is_the_tighter_bound():
    loose, tight = (exact_bound(*se_pair(joint=joint)) for joint in ("factorised", "optimal"))
    assert float((loose - tight).detach()) > 0.01


@pytest.mark.parametrize("joint", ["factorised", "optimal"])
def test_se_avae_is_the_sum_of_both_terms(joint):
    model, guide, x = se_avae_pair(joint)
    terms = exact_terms(model, guide, x)
    assert set(terms) == {"x", "z", "z_aux", "z_smooth"}
    torch.testing.assert_close(terms["z_smooth"], exact_terms(*se_pair(joint=joint))["z_smooth"], rtol=ROUNDING, atol=0)
    alone = ExtendedVAE(model.decoder, latent_dim=2, rho=RHO, obs_variance=0.5)
    avae = exact_terms(alone, AVAEGuide(guide.encoder, alone), x)
    for name, term in avae.items():
        torch.testing.assert_close(terms[name], term, rtol=ROUNDING, atol=0)


@pytest.mark.parametrize("num_views", [1, 2])
@pytest.mark.parametrize("make", [se_pair, se_avae_pair], ids=["se", "se-avae"])
@pytest.mark.parametrize("joint", ["factorised", "optimal"])
def test_monte_carlo_agrees_in_value_and_every_gradient(make, joint, num_views):
    model, guide, x = make(joint=joint, num_views=num_views)
    check = verify_bound(model, guide, AVAE_ELBO(), x, num_samples=400)
    assert check.passed, str(check)


def test_a_model_of_two_branches_keeps_the_marginals_of_one():
    """Everything tied to z is N(0, I), and the branches are independent given z."""
    model, _, x = se_avae_pair()
    with pyro.plate("particles", 50_000, dim=-2):
        trace = pyro.poutine.trace(pyro.poutine.broadcast(model)).get_trace(x[:1])
    z, aux, smooth = (trace.nodes[name]["value"].reshape(-1, 2) for name in ("z", "z_aux", "z_smooth"))
    error = 5 / math.sqrt(len(z))
    for one, other, correlation in ((z, z, 1.0), (aux, aux, 1.0), (smooth, smooth, 1.0), (aux, smooth, RHO**2)):
        torch.testing.assert_close(
            one.T @ other / len(z), correlation * torch.eye(2, dtype=F64), rtol=0, atol=error * math.sqrt(2)
        )


@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("branches", [[], ["aux"], ["smooth"], ["aux", "smooth"]])
def test_bernoulli_gradients_are_those_of_a_hand_written_objective(branches, noise):
    """Some mistakes vanish for Gaussians: the objective of one seed, without Pyro."""
    decoder, encoder, x = parts()
    x = x.round()
    rho = dict.fromkeys(branches, RHO)
    views = {"aux": DecoderSample(), "smooth": Perturbed(DELTA)}
    if branches:
        model = ExtendedVAE(decoder, latent_dim=2, rho=rho, likelihood=bernoulli)
        guide = AVAEGuide(encoder, model, view={name: views[name] for name in rho}, input_noise=noise)
    else:
        model = VAE(decoder, latent_dim=2, likelihood=bernoulli)
        guide = AmortizedGuide(encoder, input_noise=noise)
    torch.manual_seed(3)
    loss = AVAE_ELBO()(model, guide)(x)
    found = gradients(loss, model, guide)

    torch.manual_seed(3)
    loc, scale = encoder(x + noise * torch.randn(x.shape, dtype=F64) if noise else x)
    z = loc + scale * torch.randn(loc.shape, dtype=F64)
    by_hand = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
    for name in rho:
        seen = x + DELTA if name == "smooth" else torch.bernoulli(torch.sigmoid(decoder(z)).detach())
        loc_b, scale_b = encoder(seen)
        torch.randn(loc.shape, dtype=F64)  # z_aux itself is drawn too
        rest = 1 - RHO**2
        kl = (scale_b**2 + (loc_b - RHO * z) ** 2) / rest - 1 - 2 * scale_b.log() + math.log(rest)
        by_hand = by_hand + 0.5 * kl.sum()
    by_hand = by_hand + nn.functional.binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    torch.testing.assert_close(loss, by_hand, rtol=ROUNDING, atol=0)
    for gradient, expected in zip(found, gradients(by_hand, model, guide), strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_input_noise_is_exact_and_only_in_training():
    decoder, encoder, x = parts()
    model = VAE(decoder, latent_dim=2, obs_variance=0.5)
    guide = AmortizedGuide(encoder, input_noise=0.3)
    noisy, clean = exact_terms(model, guide, x), exact_terms(model, AmortizedGuide(encoder), x)
    gain, weight = encoder.linear.weight, decoder.weight
    # z is moved by K e, e ~ N(0, 0.09 I): its KL grows by E |K e|^2 / 2, the squared error by E |W K e|^2.
    moved = len(x) * 0.09
    torch.testing.assert_close(noisy["z"], clean["z"] - 0.5 * moved * gain.square().sum(), rtol=ROUNDING, atol=0)
    moved_x = moved * (weight @ gain).square().sum()
    torch.testing.assert_close(noisy["x"], clean["x"] - 0.5 * moved_x / 0.5, rtol=ROUNDING, atol=0)
    assert verify_bound(model, guide, AVAE_ELBO(), x, num_samples=400).passed
    guide.eval()
    torch.testing.assert_close(exact_bound(model, guide, x), -sum(clean.values()), rtol=ROUNDING, atol=0)


def test_input_noise_reaches_the_data_and_not_the_views():
    decoder, encoder, x = parts()
    model = ExtendedVAE(decoder, latent_dim=2, rho=RHO, obs_variance=0.5)
    guide = AVAEGuide(encoder, model, view=Perturbed(DELTA), input_noise=0.3)
    trace = pyro.poutine.trace(guide).get_trace(x)
    assert list(trace.nodes) == ["_INPUT", "data", "x_noisy", "z", "x_aux", "z_aux", "_RETURN"]
    torch.testing.assert_close(trace.nodes["x_aux"]["value"], x + DELTA)
    assert verify_bound(model, guide, AVAE_ELBO(), x, num_samples=400).passed


def test_the_weight_of_the_kl_terms_may_be_a_tensor_that_changes():
    model, guide, x = se_avae_pair()
    weight = torch.tensor(0.25)
    elbo = AVAE_ELBO(kl_weight=weight, weights={"z_aux": 2.0})
    plain, weighted = exact_terms(model, guide, x), exact_terms(model, guide, x, elbo)
    factors = {"x": 1.0, "z": 0.25, "z_aux": 0.5, "z_smooth": 0.25}
    for name, term in plain.items():
        torch.testing.assert_close(weighted[name], factors[name] * term, rtol=ROUNDING, atol=0)
    assert verify_bound(model, guide, elbo, x, num_samples=400).passed
    weight.fill_(0.0)
    torch.manual_seed(0)
    at_zero = elbo.terms(model, guide, x)
    assert at_zero["z"] == at_zero["z_smooth"] == 0 and at_zero["x"] != 0


def test_batch_statistics_after_an_avae_step_are_those_after_a_vae_step():
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))

        def forward(self, x):
            loc, raw = self.layers(x).chunk(2, -1)
            return loc, raw.exp()

    decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
    encoder, x = Encoder(), torch.rand(16, 4)
    for statistics in ("batch", "running"):
        one, two = copy.deepcopy((decoder, encoder)), copy.deepcopy((decoder, encoder))
        plain = VAE(one[0], latent_dim=2)
        torch.manual_seed(1)
        AVAE_ELBO()(plain, AmortizedGuide(one[1]))(x).backward()
        model = ExtendedVAE(two[0], latent_dim=2, rho={"aux": RHO, "smooth": RHO})
        views = {"aux": "sample", "smooth": WorstCase(epsilon=0.1)}
        guide = AVAEGuide(two[1], model, view=views, statistics=statistics)
        torch.manual_seed(1)
        AVAE_ELBO()(model, guide)(x).backward()
        for after_vae, after_avae in zip(one, two, strict=True):
            for name, buffer in after_vae.named_buffers():
                torch.testing.assert_close(dict(after_avae.named_buffers())[name], buffer, rtol=0, atol=0)
        assert float(dict(two[1].named_buffers())["layers.1.running_mean"].abs().sum()) > 0
        assert all(part.training for part in guide.modules())


def test_a_natural_rho_finds_the_kernel_of_ppca():
    """With the exact posterior the chain's correlation per dimension is lambda / (lambda + nu)."""
    torch.manual_seed(0)
    lambdas = torch.tensor([4.0, 0.5, 0.0], dtype=F64)
    model = PPCA(torch.linalg.qr(torch.randn(6, 3, dtype=F64))[0] * lambdas.sqrt(), obs_variance=0.5)
    encoder = LinearEncoder.from_affine(*model.posterior_map())
    target = ExtendedVAE(model.decoder, latent_dim=3, rho=NaturalRho(latent_dim=3, momentum=0.05), obs_variance=0.5)
    target = target.double()
    guide = AVAEGuide(encoder, target)
    elbo = AVAE_ELBO()
    steps, batch = 200, 2000
    for _ in range(steps):
        with torch.no_grad():
            x = model.observe(model.prior(torch.zeros(1, dtype=F64)).expand((batch,)).sample()).sample()
            elbo.differentiable_loss(target, guide, x)
    natural = lambdas / (lambdas + 0.5)
    # The average forgets: its weight is that of (2 - m) / m = 39 batches. A correlation's error is below 1/sqrt(n).
    error = 5 / math.sqrt(39 * batch)
    torch.testing.assert_close(target.coupling.rho, natural, rtol=0, atol=error)
    target.eval()
    before = target.coupling.rho.clone()
    with torch.no_grad():
        elbo.differentiable_loss(target, guide, x)
    assert torch.equal(target.coupling.rho, before)
    assert bool(exact_bound(target, guide, x[:3]).isfinite())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda m, e: AVAEGuide(e, m, view={"aux": "sample"}),
            r"view: expected one for each branch of the model, \['aux', 'smooth'\], got \['aux'\]",
        ),
        (lambda m, e: AVAEGuide(e, m, joint="best"), r"joint: expected one of \['factorised', 'optimal'\] or a Joint"),
        (lambda m, e: AVAEGuide(e, m, statistics="none"), "statistics: expected one of batch, running, got 'none'"),
        (lambda m, e: AVAEGuide(e, m, input_noise=-1.0), "input_noise: expected a standard deviation of at least 0"),
        (lambda m, e: ExtendedVAE(m.decoder, latent_dim=2, rho={}), "rho: expected at least one branch"),
        (
            lambda m, e: ExtendedVAE(m.decoder, latent_dim=2, rho={"aux": 0.5, "smooth": PairwisePrior(1.0)}),
            "rho: expected couplings that keep one prior of z",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    decoder, encoder, _ = parts()
    model = ExtendedVAE(decoder, latent_dim=2, rho={"aux": 0.5, "smooth": FixedRho(0.9, latent_dim=2)})
    with pytest.raises(InputError, match=message):
        make(model, encoder)
