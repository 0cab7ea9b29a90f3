"""Consistency regularisation: its divergence in closed form, its direction, and what it leaves of the bound."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributions import kl_divergence

from pyro_avae import AVAE_ELBO, IWAE_ELBO, compile_step
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.consistency import CR_ELBO, CR_IWAE
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import VAE, bernoulli
from pyro_avae.transformations import RandomAffine

F64 = torch.float64
BASES = [(CR_ELBO, AVAE_ELBO), (CR_IWAE, IWAE_ELBO)]


class Encoder(nn.Module):
    """loc = A x, scale depending on x, diagonal or full."""

    def __init__(self, *, full=False):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(2, 4, dtype=F64, generator=torch.Generator().manual_seed(0)))
        self.full = full

    def forward(self, x):
        loc = x @ self.gain.mT
        scale = (0.3 * x[..., :2]).exp()
        return loc, torch.diag_embed(scale) + 0.1 * torch.ones(2, 2, dtype=F64).tril(-1) if self.full else scale


def pair(*, full=False, likelihood=None):
    torch.manual_seed(0)
    options = {"likelihood": likelihood} if likelihood else {"obs_variance": 0.5}
    return VAE(nn.Linear(2, 4), latent_dim=2, **options).double(), AmortizedGuide(Encoder(full=full))


def rows(count=6):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1), dtype=F64).round()


def shifted(x):
    return 1 - x


def gradients(loss, *modules):
    return torch.autograd.grad(loss, [p for module in modules for p in module.parameters()], retain_graph=True)


@pytest.mark.parametrize("full", [False, True])
def test_the_regulariser_is_the_divergence_of_the_changed_from_the_original(full):
    model, guide = pair(full=full)
    x = rows()
    found = CR_ELBO(transformation=shifted, weight=0.7).terms(model, guide, x)["consistency"]
    q, changed = guide.posterior(x), guide.posterior(shifted(x))
    one, other = kl_divergence(changed, q).sum(), kl_divergence(q, changed).sum()
    torch.testing.assert_close(found, -0.7 * one, rtol=1e-12, atol=1e-12)
    assert abs(float((one - other).detach())) > 0.1  # the direction matters here
    for mine, theirs in zip(gradients(found, guide), gradients(-0.7 * one, guide), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_of_a_linear_encoder_with_one_scale_it_is_the_quadratic_form():
    torch.manual_seed(0)
    model, guide = VAE(nn.Linear(2, 4), latent_dim=2).double(), AmortizedGuide(LinearEncoder(4, 2).double())
    x = rows()
    found = CR_ELBO(transformation=shifted, weight=1.0).terms(model, guide, x)["consistency"]
    moved = (guide.encode(shifted(x))[0] - guide.encode(x)[0]) / guide.encode(x)[1]
    torch.testing.assert_close(found, -0.5 * (moved**2).sum(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("regularised", "base"), BASES)
@pytest.mark.parametrize("likelihood", [None, bernoulli])
def test_the_rest_is_the_bound_of_both_halves(regularised, base, likelihood):
    model, guide = pair(likelihood=likelihood)
    for weight in (0.0, 0.5):
        torch.manual_seed(3)
        elbo = regularised(transformation=shifted, weight=weight, num_particles=3, vectorize_particles=True)
        found = elbo.evaluate(model, guide, rows())
        torch.manual_seed(3)
        plain = base(num_particles=3, vectorize_particles=True)
        expected = plain.evaluate(model, guide, torch.cat([rows(), shifted(rows())]))
        regulariser = -found.sites["consistency"]
        torch.testing.assert_close(found.loss, expected.loss + regulariser, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(sum(found.sites.values()), -found.loss, rtol=1e-10, atol=1e-10)
        ours, theirs = gradients(found.loss - regulariser, model, guide), gradients(expected.loss, model, guide)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    assert float(regulariser.detach()) > 0


def test_an_image_that_does_not_change_costs_nothing():
    model, guide = pair()
    assert (
        float(CR_ELBO(transformation=lambda x: x, weight=5.0).terms(model, guide, rows())["consistency"].detach()) == 0
    )


@pytest.mark.parametrize(("regularised", "base"), BASES)
def test_a_compiled_step_is_the_eager_one(regularised, base, monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)
    x = torch.rand(5, 1, 8, 8, dtype=F64)
    losses = []
    for compile in (True, False):
        torch.manual_seed(0)
        decoder = nn.Sequential(nn.Linear(2, 64), nn.Unflatten(1, (1, 8, 8)))
        encoder = nn.Sequential(nn.Flatten(), LinearEncoder(64, 2))
        elbo = regularised(transformation=RandomAffine(), weight=0.1, num_particles=2, vectorize_particles=True)
        module = elbo(VAE(decoder, latent_dim=2).double(), AmortizedGuide(encoder).double())
        with pyro.validation_enabled(False):
            step = compile_step(module, torch.optim.Adam(module.parameters(), lr=0.01), x, compile=compile)
            losses.append(torch.stack([step(x) for _ in range(4)]))
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)
    assert len(losses[0].unique()) == 4


@pytest.mark.parametrize("transformation", [lambda x: x[:4], lambda x: x[:, :2], lambda x: None])
def test_a_transformation_of_another_shape_is_refused(transformation):
    model, guide = pair()
    with pytest.raises(
        InputError, match=r"transformation: expected it to return the shape that it gets, \(6, 4\), got"
    ):
        CR_ELBO(transformation=transformation, weight=1.0).terms(model, guide, rows())
    with pytest.raises(InputError, match="transformation: expected a function"):
        CR_IWAE(transformation=None, weight=1.0, num_particles=2)


def test_what_it_cannot_do_is_refused():
    with pytest.raises(InputError, match="weight: expected a finite number of at least 0, got -1"):
        CR_ELBO(transformation=shifted, weight=-1)

    def laplace(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Laplace(x[:, :2], 1.0).to_event(1))

    model, _ = pair()
    with pytest.raises(InputError, match="consistency: expected a Gaussian posterior, got Laplace"):
        CR_ELBO(transformation=shifted, weight=1).terms(model, laplace, rows())
