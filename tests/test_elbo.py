"""AVAE_ELBO on any pair of programs: against Pyro's own ELBOs, exact values, and pairs that do not fit."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE, Gaussian

F64 = torch.float64
#: Some tens of roundings in float64, times condition numbers of the order of 10.
ROUNDING = 1e3 * torch.finfo(F64).eps


def linear_pair(*, full=False, num_views=1, rho=0.8, learned_nu=False, seed=0, **options):
    torch.manual_seed(seed)
    likelihood = Gaussian(obs_variance=0.5, learned=learned_nu)
    model = ExtendedVAE(nn.Linear(2, 3), latent_dim=2, rho=rho, likelihood=likelihood, num_views=num_views).double()
    guide = AVAEGuide(LinearEncoder(3, 2, full_covariance=full).double(), model, **options)
    return model, guide, torch.rand(4, 3, dtype=F64)


def plain_pair():
    model, guide, x = linear_pair()
    return VAE(model.decoder, latent_dim=2, obs_variance=0.5), AmortizedGuide(guide.encoder), x


def value_and_grads(elbo, model, guide, x, *, seed=1):
    torch.manual_seed(seed)
    loss = elbo.differentiable_loss(model, guide, x)
    return loss, torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])


def assert_zero_mean(differences: torch.Tensor, *, sigmas: float = 5.0) -> None:
    """Each column's mean within ``sigmas`` standard errors of 0; about 1e-6 a column for normal errors."""
    error = differences.std(0) / math.sqrt(len(differences))
    assert bool((differences.mean(0).abs() <= sigmas * error + 1e-12).all())


@pytest.mark.parametrize("particles", [{}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}])
@pytest.mark.parametrize(
    "pair",
    [plain_pair, linear_pair, lambda: linear_pair(num_views=3), lambda: linear_pair(view="mean", gradient="cut")],
    ids=["plain", "extended", "chain", "mean_cut"],
)
def test_it_equals_the_stock_mean_field_elbo(pair, particles):
    model, guide, x = pair()
    loss, grads = value_and_grads(AVAE_ELBO(**particles), model, guide, x)
    stock, stock_grads = value_and_grads(TraceMeanField_ELBO(max_plate_nesting=1, **particles), model, guide, x)
    # TraceMeanField's differentiable_loss is a tensor, its value the same number
    torch.testing.assert_close(loss, stock, rtol=ROUNDING, atol=ROUNDING)
    for grad, expected in zip(grads, stock_grads, strict=True):
        torch.testing.assert_close(grad, expected, rtol=ROUNDING, atol=10 * ROUNDING)


@pytest.mark.parametrize("options", [{}, {"full": True}, {"num_views": 2, "gradient": "cut"}])
def test_it_equals_the_stock_trace_elbo_in_expectation(options):
    """Paired seeds: the two differ by the noise of log q - log p around the analytic KL."""
    model, guide, x = linear_pair(**options)
    many = {"num_particles": 50, "vectorize_particles": True, "max_plate_nesting": 1}
    rows = []
    for seed in range(60):
        row = []
        for elbo in (AVAE_ELBO(**many), Trace_ELBO(**many)):
            torch.manual_seed(seed)
            loss = elbo.differentiable_loss(model, guide, x)
            grads = torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])
            row.append(torch.cat([loss.detach().reshape(1), *(grad.flatten() for grad in grads)]))
        rows.append(row[0] - row[1])
    differences = torch.stack(rows)
    assert bool((differences[:, 0].abs() > 1e-6).any())  # they are not the same estimator
    assert_zero_mean(differences)


def chained_pair(a=0.9, v=0.4, m=0.7, s=0.8, c=0.6, t=0.5):
    """Model z_aux -> z -> x, guide z -> z_aux; and the exact bound of one data point x = 1."""

    def model(x):
        with pyro.plate("data", len(x)):
            z_aux = pyro.sample("z_aux", dist.Normal(x.new_zeros(()), 1.0))
            z = pyro.sample("z", dist.Normal(a * z_aux, math.sqrt(v)))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.full_like(x, m), s))
            pyro.sample("z_aux", dist.Normal(c * z, t))

    def log_normal(squared: float, variance: float) -> float:
        return -0.5 * (math.log(2 * math.pi * variance) + squared / variance)

    moment = m**2 + s**2
    tied = (1 - a * c) ** 2 * moment + a**2 * t**2
    untied = tied + 2 * a * c * s**2  # z drawn anew, independent of z_aux: what an analytic KL at z would compute
    entropy = 0.5 * math.log(2 * math.pi * math.e * s**2) + 0.5 * math.log(2 * math.pi * math.e * t**2)
    rest = log_normal((1 - m) ** 2 + s**2, 1.0) + log_normal(c**2 * moment + t**2, 1.0) + entropy
    return model, guide, rest + log_normal(tied, v), rest + log_normal(untied, v)


def test_no_analytic_kl_where_it_would_be_biased():
    model, guide, exact, naive = chained_pair()
    elbo = AVAE_ELBO(num_particles=2000, vectorize_particles=True)
    bounds = -torch.stack([elbo.differentiable_loss(model, guide, torch.ones(1, dtype=F64)) for _ in range(50)])
    error = float(bounds.std()) / math.sqrt(50)
    assert abs(float(bounds.mean()) - exact) < 5 * error
    assert abs(exact - naive) > 50 * error  # so the test could tell
    # the site that is not affected keeps its analytic KL: given z it has no noise of its own
    torch.manual_seed(0)
    term = AVAE_ELBO().terms(model, guide, torch.ones(1, dtype=F64))["z_aux"]
    torch.manual_seed(0)
    z = 0.7 + 0.8 * torch.randn(1, dtype=F64)
    kl = 0.5 * ((0.6 * z) ** 2 + 0.25 - 1 - math.log(0.25))
    torch.testing.assert_close(term, -kl.sum(), rtol=ROUNDING, atol=ROUNDING)


def test_weights_multiply_the_terms_of_their_sites():
    model, guide, x = linear_pair()
    torch.manual_seed(1)
    plain = AVAE_ELBO().terms(model, guide, x)
    torch.manual_seed(1)
    weighted = AVAE_ELBO(weights={"z": 4.0, "z_aux": 0.25}).evaluate(model, guide, x)
    expected = {"x": plain["x"], "z": 4 * plain["z"], "z_aux": plain["z_aux"] / 4}
    assert weighted.sites.keys() == expected.keys()
    for name, term in expected.items():
        torch.testing.assert_close(weighted.sites[name], term, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(weighted.loss, -sum(expected.values()), rtol=ROUNDING, atol=ROUNDING)
    with pytest.raises(
        InputError, match=r"weights: no term \['z_axu'\] in this bound, its terms are \['x', 'z', 'z_aux'\]"
    ):
        AVAE_ELBO(weights={"z_axu": 2.0})(model, guide)(x)


@pytest.mark.parametrize("particles", [{"num_particles": 4}, {"num_particles": 4, "vectorize_particles": True}])
def test_loss_terms_and_module_agree(particles):
    model, guide, x = linear_pair()
    elbo = AVAE_ELBO(**particles)
    values = []
    for run in (
        lambda: elbo(model, guide)(x),
        lambda: elbo.differentiable_loss(model, guide, x),
        lambda: torch.tensor(elbo.loss(model, guide, x), dtype=F64),
        lambda: torch.tensor(elbo.loss_and_grads(model, guide, x), dtype=F64),
        lambda: -torch.stack(list(elbo.terms(model, guide, x).values())).sum(),
        lambda: elbo.evaluate(model, guide, x).loss,
    ):
        torch.manual_seed(3)
        values.append(run().detach())
    torch.testing.assert_close(torch.stack(values), values[0].expand(6), rtol=ROUNDING, atol=ROUNDING)
    _, grads = value_and_grads(elbo, model, guide, x, seed=3)
    for parameter, grad in zip([*model.parameters(), *guide.parameters()], grads, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=ROUNDING, atol=ROUNDING)


def test_the_loss_is_a_sum_over_the_batch_and_a_mean_over_particles():
    model, guide, x = linear_pair(view="mean")
    with torch.no_grad():
        guide.encoder.log_scale.fill_(-30.0)  # no noise to speak of: the loss becomes a function of x
    rows = [AVAE_ELBO()(model, guide)(x[i : i + 1]) for i in range(4)]
    # noise exp(-30) = 1e-13 moves the loss by as much times its slope
    torch.testing.assert_close(AVAE_ELBO()(model, guide)(x), torch.stack(rows).sum(), rtol=1e-10, atol=1e-10)
    three = AVAE_ELBO(num_particles=3, vectorize_particles=True)(model, guide)(x)
    torch.testing.assert_close(three, torch.stack(rows).sum(), rtol=1e-10, atol=1e-10)


def test_entropies_of_the_views_are_reported_apart():
    model, guide, x = linear_pair(num_views=2, learned_nu=True)
    for particles in ({}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}):
        bound = AVAE_ELBO(with_entropy=True, **particles).evaluate(model, guide, x)
        entropy = 4 * 3 * 0.5 * math.log(2 * math.pi * math.e * 0.5)  # batch * D * entropy of N(., nu)
        assert sorted(bound.entropy) == ["x_aux", "x_aux_2"]
        for value in bound.entropy.values():
            assert not value.requires_grad
            # nu = 1e-8 + softplus(raw), raw made in float32
            assert float(value) == pytest.approx(entropy, rel=10 * torch.finfo(torch.float32).eps)
    assert AVAE_ELBO().evaluate(model, guide, x).entropy == {}
    mean = AVAEGuide(guide.encoder, model, view="mean")
    assert AVAE_ELBO(with_entropy=True).evaluate(model, mean, x).entropy == {}


def test_nothing_on_the_way_waits_for_the_device():
    class NoSync(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            assert func is not torch.ops.aten._local_scalar_dense.default, "a tensor was read back to Python"
            return func(*args, **(kwargs or {}))

    model, guide, x = linear_pair(full=True, num_views=2, rho="learned", learned_nu=True)
    with pyro.validation_enabled(False), NoSync():
        AVAE_ELBO(num_particles=2, vectorize_particles=True)(model, guide)(x).backward()
    with NoSync(), pytest.raises(AssertionError, match="read back"):
        float(torch.ones(()))


def test_the_number_of_plates_can_be_found_out():
    model, guide, x = linear_pair()
    torch.manual_seed(1)
    expected = AVAE_ELBO(num_particles=2, vectorize_particles=True)(model, guide)(x)
    guess = AVAE_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=math.inf)
    guess(model, guide)(x)
    assert guess.max_plate_nesting == 2  # the data, and the particles in front
    torch.manual_seed(1)
    torch.testing.assert_close(guess(model, guide)(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "3"])
def test_no_particles_are_refused(number):
    with pytest.raises(InputError, match=rf"\Anum_particles: expected an integer of at least 1, got {number!r}\Z"):
        AVAE_ELBO(num_particles=number)


def free_bits_pair():
    torch.manual_seed(0)
    model = VAE(nn.Linear(2, 5).double(), latent_dim=2)
    return model, AmortizedGuide(LinearEncoder(5, 2).double()), torch.randn(6, 5, dtype=F64)


def test_free_bits_cost_nothing_below_their_number():
    """Minus the larger of the batch's KL and 6 times the free bits, with the gradient of the one that counts."""
    model, guide, x = free_bits_pair()
    kl = -AVAE_ELBO().terms(model, guide, x)["z"]
    per_image = float(kl.detach()) / 6
    parameters = list(guide.parameters())
    expected = torch.autograd.grad(kl, parameters)
    for bits, free in ((per_image * 0.99, False), (per_image * 1.01, True)):
        term = AVAE_ELBO(free_bits={"z": bits}).terms(model, guide, x)["z"]
        assert float(-term.detach()) == pytest.approx(6 * bits if free else 6 * per_image, rel=1e-12)
        found = torch.autograd.grad(-term, parameters, allow_unused=True)
        for one, other in zip(found, expected, strict=True):
            assert (one is None or one.abs().max() == 0) if free else torch.allclose(one, other)


@pytest.mark.parametrize("vectorize", [False, True])
def test_free_bits_of_particles(vectorize):
    """The KL is analytic, so particles have the same."""
    model, guide, x = free_bits_pair()
    elbo = AVAE_ELBO(free_bits={"z": 50.0}, num_particles=3, vectorize_particles=vectorize)
    assert float(elbo.terms(model, guide, x)["z"].detach()) == pytest.approx(-300.0)


def test_free_bits_of_what_is_not_there_are_refused():
    model, guide, x = free_bits_pair()
    with pytest.raises(InputError, match="free_bits: no term"):
        AVAE_ELBO(free_bits={"w": 1.0})(model, guide)(x)
    with pytest.raises(InputError, match="free_bits: expected finite numbers"):
        AVAE_ELBO(free_bits={"z": -1.0})
