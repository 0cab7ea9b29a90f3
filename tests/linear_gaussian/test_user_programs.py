"""Pairs that the library has never seen: what exact_bound reads, and what it refuses, by name."""

import math
import random

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.optim import Adam
from torch import nn

from pyro_avae import AVAE_ELBO, auxiliary
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound, exact_second_moment, verify_bound
from pyro_avae.models import VAE, ExtendedVAE, bernoulli


def test_a_users_pair_of_functions_with_a_shared_latent():
    """A latent outside the plate, parameters in Pyro's store, a module in the closure: read without being told."""
    encoder = nn.Linear(3, 2)

    def model(x):
        mu = pyro.sample("mu", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        w = pyro.param("w", 0.3 * torch.ones(3, 2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.MultivariateNormal(z @ w.T + mu, 0.5 * torch.eye(3)), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.zeros(3))
        scale = pyro.param("scale", torch.ones(3), constraint=dist.constraints.positive)
        mu = pyro.sample("mu", dist.Normal(loc, scale).to_event(1))
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x - mu), 0.5).to_event(1))

    x = torch.randn(4, 3)
    check = verify_bound(model, guide, TraceMeanField_ELBO(), x, num_samples=1500)
    assert check.passed, str(check)
    assert {"loc", "scale", "w", "guide.weight", "guide.bias"} <= {row.name for row in check.rows}
    assert pyro.param("w").dtype is torch.float32


def test_parameters_made_on_first_use_keep_their_dtype_and_their_random_start():
    def model(x):
        w = pyro.param("w", lambda: torch.randn(3, 2))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ w.T, 0.5).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ pyro.param("k", 0.1 * torch.ones(3, 2)), 0.5).to_event(1))

    x = torch.randn(4, 3)
    exact = exact_bound(model, guide, x)
    assert {pyro.param(name).dtype for name in ("w", "k")} == {torch.float32}
    assert exact_bound(model, guide, x).item() == exact.item()
    exact.backward()
    assert pyro.param("w").unconstrained().grad is not None
    assert verify_bound(model, guide, AVAE_ELBO(), x, num_samples=200).passed


def test_what_a_guide_observes_counts(pair):
    model, guide, x = pair(4, 2, seed=20)

    plain = VAE(model.decoder, latent_dim=2, obs_variance=0.5)

    def observing(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", guide.posterior(x))
            pyro.sample("seen", dist.Normal(z, 0.7).to_event(1), obs=torch.ones(2), infer={"is_auxiliary": True})

    assert exact_bound(plain, observing, x) != exact_bound(plain, AmortizedGuide(guide.encoder), x)
    check = verify_bound(plain, observing, AVAE_ELBO(), x, num_samples=1000)
    assert check.passed, str(check)


def test_a_factor_in_the_guide_is_refused_by_name(pair):
    model, guide, x = pair(4, 2, seed=21)

    def factored(x):
        z = guide(x)
        pyro.factor("bonus", z.square().sum(), has_rsample=True)

    with pytest.raises(InputError, match="site 'bonus': expected a Gaussian"):
        exact_bound(model, factored, x)


def test_an_unconstrained_cholesky_factor(pair):
    """Its upper triangle is zero and unused: no gradient there, as in the analytic KL."""
    model, guide, x = pair(4, 2, seed=22)
    plain = VAE(model.decoder, latent_dim=2, obs_variance=0.5)

    def cholesky(x):
        factor = pyro.param("factor", torch.tensor([[0.5, 0.0], [0.3, 0.8]], dtype=torch.float64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(guide.encode(x)[0], scale_tril=factor))

    with pyro.validation_enabled(False):
        check = verify_bound(plain, cholesky, AVAE_ELBO(), x, num_samples=1000)
    assert check.passed, str(check)


class Holder:
    """No module itself: its programs are methods that use modules in a list."""

    def __init__(self):
        self.parts = [nn.Linear(2, 4), {"encoder": LinearEncoder(4, 2)}]

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.parts[0](z), 0.5).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            loc, scale = self.parts[1]["encoder"](x)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


def test_methods_of_a_plain_object():
    holder = Holder()
    check = verify_bound(holder.model, holder.guide, AVAE_ELBO(), torch.randn(3, 4), num_samples=200)
    assert check.passed, str(check)
    assert len(check.rows) == 1 + 2 + 3


def test_a_loose_float32_tensor_is_named_as_the_trouble():
    weight = torch.ones(2, 4)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight, 0.5).to_event(1), obs=x)

    with pytest.raises(InputError, match="float32 tensor"):
        exact_bound(model, AmortizedGuide(LinearEncoder(4, 2)), torch.randn(3, 4))


@pytest.mark.parametrize(
    "x", [torch.zeros(0, 4), torch.full((2, 4), math.nan), np.zeros((2, 4)), torch.zeros(2, 4, dtype=torch.int64)]
)
def test_data_that_cannot_be_used_are_refused(pair, x):
    model, guide, _ = pair(4, 2, seed=23)
    with pytest.raises(InputError, match="x: expected a non-empty tensor of finite"):
        exact_bound(model, guide, x)


def test_elements_of_a_plate_that_depend_on_one_another():
    """A guide that sums over the batch breaks the plate's independence; the exact value is still right."""

    def model(x):
        total = pyro.sample("total", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z + total, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.5 * x, 0.7))
        pyro.sample("total", dist.Normal(0.3 * (x - z).sum(), 0.5))

    check = verify_bound(model, guide, Trace_ELBO(), torch.randn(5), num_samples=3000)
    assert check.passed, str(check)


def test_a_users_pair_of_pyro_modules_before_and_after_svi():
    """PyroModules read their parameters through the store, which must neither hide nor keep the float64 casts."""

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.decoder = PyroModule[nn.Linear](2, 5)
            self.noise = PyroParam(torch.tensor(0.7), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(self.decoder(z), self.noise).to_event(1), obs=x)

    class Guide(PyroModule):
        def __init__(self):
            super().__init__()
            self.encoder = PyroModule[nn.Linear](5, 2)
            self.spread = PyroParam(torch.ones(2), constraint=dist.constraints.positive)

        def forward(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(self.encoder(x), self.spread).to_event(1))

    model, guide, x = Model(), Guide(), torch.randn(4, 5)
    assert verify_bound(model, guide, Trace_ELBO(), x, num_samples=200).passed
    before = exact_bound(model, guide, x)
    SVI(model, guide, Adam({"lr": 0.01}), AVAE_ELBO()).step(x)
    assert exact_bound(model, guide, x) != before
    check = verify_bound(model, guide, AVAE_ELBO(), x, num_samples=200)
    assert check.passed, str(check)
    assert len(check.rows) == 1 + 6
    assert all(p.dtype is torch.float32 for module in (model, guide) for p in module.parameters())


@pytest.mark.parametrize("data_dim", [3, 5])
def test_pixels_in_a_plate_of_their_own(data_dim):
    """The encoder mixes the elements of the inner plate, so that they cannot be switched on together."""
    encoder, decoder = LinearEncoder(data_dim, 2), nn.Linear(2, data_dim)

    def normal(loc, scale):
        return dist.Normal(loc.unsqueeze(-2), scale.unsqueeze(-2)).to_event(1)

    def model(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", normal(torch.zeros(2), torch.ones(2)))
            pyro.sample("z_aux", dist.Normal(0.8 * z, 0.6).to_event(1))
            with pyro.plate("pixels", data_dim, dim=-1):
                pyro.sample("x", dist.Normal(decoder(z.squeeze(-2)), 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-2):
            z = pyro.sample("z", normal(*encoder(x)))
            with pyro.plate("pixels", data_dim, dim=-1):
                x_aux = auxiliary("x_aux", dist.Normal(decoder(z.squeeze(-2)).detach(), 0.5))
            pyro.sample("z_aux", normal(*encoder(x_aux)))

    check = verify_bound(model, guide, AVAE_ELBO(max_plate_nesting=2), torch.randn(4, data_dim), num_samples=300)
    assert check.passed, str(check)


def test_scale_and_mask_of_sites_count():
    def program(role):
        def run(x):
            with pyro.plate("data", len(x)), pyro.poutine.scale(scale=2.5), pyro.poutine.mask(mask=keep):
                loc = torch.zeros(len(x)) if role == "model" else 0.5 * x
                z = pyro.sample("z", dist.Normal(loc, 1.0 if role == "model" else 0.6))
                if role == "model":
                    pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return run

    keep = torch.tensor([True, False, True])
    x = torch.tensor([1.0, 2.0, 3.0])
    model, guide = program("model"), program("guide")
    assert verify_bound(model, guide, AVAE_ELBO(), x, num_samples=1000).passed
    kept = torch.tensor([1.0, 3.0])
    keep_all = torch.tensor([True, True])
    masked = exact_bound(model, guide, x).item()
    keep = keep_all
    assert abs(masked - exact_bound(model, guide, kept).item()) < 1e-12


def test_moments_of_a_site_the_guide_does_not_draw(pair):
    model, guide, x = pair(4, 2, seed=9)
    with pytest.raises(InputError, match="'x'"):
        exact_second_moment(model, guide, x, "z", "x")


class Rubbish(nn.Module):
    """Encoders and decoders that are not affine, one idea each."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(5, 2)

    def forward(self, x):
        loc = self.linear(x)
        if self.kind == "mean":
            return loc.tanh(), torch.ones_like(loc)
        if self.kind == "covariance":
            return loc, nn.functional.softplus(loc)
        return loc, torch.ones_like(loc)


def far_relu(z):
    """Affine up to three standard deviations, where no Monte Carlo of a few samples would see the bend."""
    return nn.functional.relu(z + 3.0)


@pytest.mark.parametrize(
    ("decoder", "encoder", "likelihood", "site"),
    [
        (nn.Sequential(nn.Linear(2, 5), nn.Sigmoid()), Rubbish("affine"), None, "x_aux"),
        (nn.Linear(2, 5), Rubbish("mean"), None, "z_aux"),
        (nn.Linear(2, 5), Rubbish("covariance"), None, "z_aux"),
        (nn.Linear(2, 5), Rubbish("affine"), bernoulli, "x_aux"),
        (nn.Linear(2, 5), Rubbish("affine"), lambda out: dist.Normal(out, out.square() + 1), "x_aux"),
        (nn.Linear(2, 5), Rubbish("affine"), lambda out: dist.Normal(far_relu(out), 1.0), "x_aux"),
        (nn.Linear(2, 5), Rubbish("affine"), lambda out: dist.StudentT(4.0, out, 1.0), "x_aux"),
    ],
)
def test_a_pair_that_is_not_linear_gaussian_is_refused_by_site(decoder, encoder, likelihood, site):
    model = ExtendedVAE(decoder, latent_dim=2, likelihood=likelihood)
    guide = AVAEGuide(encoder, model)
    with pytest.raises(InputError, match=f"site '{site}'.*linear-Gaussian"):
        exact_bound(model, guide, torch.zeros(3, 5))


def test_a_likelihood_that_is_not_gaussian_is_refused_in_the_model():
    with pytest.raises(InputError, match="site 'x': expected a Gaussian, got Bernoulli"):
        model = VAE(nn.Linear(2, 5), latent_dim=2, likelihood=bernoulli)
        exact_bound(model, AmortizedGuide(Rubbish("affine")), torch.zeros(3, 5))


def test_a_latent_that_the_guide_lacks_is_refused(pair):
    model, guide, x = pair(5, 2, seed=10)
    with pytest.raises(InputError, match="site 'z_aux': latent in the model"):
        exact_bound(model, AmortizedGuide(guide.encoder), x)


def drawn_plainly(x):
    return dist.Normal(x, 1.0).rsample()


def drawn_under_block(x):
    with pyro.poutine.block():
        return pyro.sample("hidden", dist.Normal(x, 1.0))


@pytest.mark.parametrize(
    ("noise", "named"),
    [
        (drawn_plainly, "aten.normal.*drawn_plainly"),
        (drawn_under_block, "aten.normal.*drawn_under_block"),
        (lambda x: x + torch.randn_like(x), "aten.randn_like"),
        (lambda x: nn.functional.dropout(x, 0.5), "aten"),
        (lambda x: x + random.random(), "Python's random module"),
        (lambda x: x + np.random.default_rng(None).normal() * 0 + np.random.normal(), "numpy.random"),  # noqa: NPY002
    ],
    ids=["rsample", "blocked", "randn", "dropout", "python", "numpy"],
)
def test_randomness_outside_sites_is_refused_by_name(pair, noise, named):
    model, guide, x = pair(5, 2, seed=11)

    def noisy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide.posterior(x))
            pyro.sample("z_aux", guide.posterior(noise(x)))

    with pytest.raises(InputError, match=f"randomness outside Pyro sites: .*{named}"):
        exact_bound(model, noisy, x)


def test_the_same_randomness_through_auxiliary_is_read(pair):
    model, guide, x = pair(5, 2, seed=12)

    def noisy(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide.posterior(x))
            view = auxiliary("x_noisy", dist.Normal(x, 0.3).to_event(1))
            pyro.sample("z_aux", guide.posterior(view))

    assert verify_bound(model, noisy, AVAE_ELBO(), x, num_samples=500).passed


def test_num_samples_must_allow_a_standard_error(pair):
    model, guide, x = pair(5, 2, seed=13)
    with pytest.raises(InputError, match="num_samples: expected at least 2, got 1"):
        verify_bound(model, guide, AVAE_ELBO(), x, num_samples=1)


def test_verify_bound_leaves_the_random_state(pair):
    model, guide, x = pair(5, 2, seed=14)
    before = torch.get_rng_state()
    first = verify_bound(model, guide, AVAE_ELBO(), x, num_samples=20, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert first == verify_bound(model, guide, AVAE_ELBO(), x, num_samples=20, seed=3)
