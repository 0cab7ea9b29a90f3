"""The extended target: its joint density by hand, and the plain model inside it."""

import itertools
import math

import pyro
import pytest
import torch
from torch import nn

from pyro_avae.coupling import FixedRho, LearnedRho, MatrixRho
from pyro_avae.errors import InputError
from pyro_avae.models import VAE, ExtendedVAE, Gaussian

F64 = torch.float64
#: Some tens of roundings, times condition numbers of up to 1/(1 - rho^2) = 20.
ROUNDING = 1e3 * torch.finfo(F64).eps


def log_normal(value, mean, variance):
    return (-((value - mean) ** 2) / (2 * variance) - 0.5 * torch.log(2 * math.pi * variance)).sum()


@pytest.mark.parametrize("links", [1, 2, 3])
@pytest.mark.parametrize("rho", [0.975, -0.4, 0.0, (0.9, -0.2)])
def test_the_joint_density_by_hand(rho, links):
    model = ExtendedVAE(nn.Linear(2, 3).double(), latent_dim=2, rho=rho, obs_variance=0.3, num_views=links)
    x = torch.rand(4, 3, dtype=F64)
    names = ["z", "z_aux", "z_aux_2", "z_aux_3"][: links + 1]
    latents = {name: torch.rand(4, 2, dtype=F64) for name in names}
    trace = pyro.poutine.trace(pyro.poutine.condition(model, latents)).get_trace(x)
    correlation, one = torch.as_tensor(rho, dtype=F64), torch.ones((), dtype=F64)
    expected = log_normal(x, model.decoder(latents["z"]), 0.3 * one) + log_normal(latents["z"], 0.0, one)
    for before, after in itertools.pairwise(names):
        expected = expected + log_normal(latents[after], correlation * latents[before], 1 - correlation**2)
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=ROUNDING, atol=ROUNDING)
    assert [name for name, site in trace.nodes.items() if site["type"] == "sample"] == ["data", "z", "x", *names[1:]]


@pytest.mark.parametrize(
    "rho", [0.9, LearnedRho((0.3, -0.8), latent_dim=2, per_dimension=True), MatrixRho(torch.eye(2) / 2)]
)
def test_summing_out_the_chain_gives_the_plain_model_back(rho):
    """z_aux and z_aux_2 are N(0, I) whatever rho: means, variances and lag-1 correlations within 5 standard errors."""
    count = 40_000
    model = ExtendedVAE(nn.Linear(2, 1), latent_dim=2, rho=rho, num_views=2).double()
    trace = pyro.poutine.trace(model).get_trace(torch.zeros(count, 1, dtype=F64))
    z, z_aux, z_aux_2 = (trace.nodes[name]["value"].detach() for name in ("z", "z_aux", "z_aux_2"))
    matrix = model.coupling(torch.eye(2, dtype=F64)).mean.detach().T
    for value in (z, z_aux, z_aux_2):
        assert bool((value.mean(0).abs() < 5 / math.sqrt(count)).all())
        moments = value.T @ value / count
        # var(z_i z_j) is 2 on the diagonal and 1 off it
        assert bool(((moments - torch.eye(2, dtype=F64)).abs() < 5 * math.sqrt(2 / count)).all())
    for before, after in ((z, z_aux), (z_aux, z_aux_2)):
        lag = after.T @ before / count
        assert bool(((lag - matrix).abs() < 5 * math.sqrt(2 / count)).all())


def test_a_coupling_of_ones_own_is_taken_as_it_is():
    own = FixedRho(0.3, latent_dim=2)
    assert ExtendedVAE(nn.Linear(2, 1), latent_dim=2, rho=own).coupling is own


def test_the_defaults_are_the_papers():
    model = ExtendedVAE(nn.Linear(2, 1), latent_dim=2)
    assert (model.coupling.rho, model.likelihood.obs_variance, model.num_views) == (0.975, 0.5, 1)
    assert isinstance(model, VAE)


def test_every_trainable_number_is_a_parameter():
    model = ExtendedVAE(nn.Linear(2, 1), latent_dim=2, rho="learned", likelihood=Gaussian(learned=True))
    names = {name for name, _ in model.named_parameters()}
    assert names == {
        "coupling.raw",
        *(f"observation.{n}" for n in ("decoder.weight", "decoder.bias", "likelihood.raw")),
    }
    assert set(model.state_dict()) == names


@pytest.mark.parametrize("views", [0, -1, 1.0, True, "2", None])
def test_a_bad_number_of_views_is_refused(views):
    with pytest.raises(InputError, match=rf"\Anum_views: expected an integer of at least 1, got {views!r}\Z"):
        ExtendedVAE(nn.Linear(2, 1), latent_dim=2, num_views=views)
