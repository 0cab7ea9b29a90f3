"""The L1 norm of the decoder's Jacobian: exact where the decoder is linear, and what its gradient reaches."""

import math

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO, compile_step
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.methods import METHODS, build
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.models import VAE, ConvDecoder, ExtendedVAE, MLPDecoder
from pyro_avae.penalties import JacobianL1, jacobian_l1
from pyro_avae.training import fit

F64 = torch.float64


def rows(count=6):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(1), dtype=F64)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4), nn.Sigmoid()).double()


@pytest.mark.parametrize("batch", [(5,), (2, 5)])
def test_of_a_linear_map_it_is_the_sum_of_the_weights(batch):
    weight = torch.randn(4, 3, dtype=F64)
    found = jacobian_l1(lambda z: z @ weight.mT + 1, torch.randn(*batch, 3, dtype=F64))
    torch.testing.assert_close(found, math.prod(batch) * weight.abs().sum())


def test_value_and_gradient_are_those_of_the_whole_jacobian():
    network, z = mlp(), torch.randn(5, 3, dtype=F64)
    whole = torch.func.vmap(torch.func.jacrev(network))(z).abs().sum()
    found = jacobian_l1(network, z)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)
    parameters = list(network.parameters())[:-1]  # the last bias is behind the last product, and still in the sigmoid
    for one, other in zip(torch.autograd.grad(found, parameters), torch.autograd.grad(whole, parameters), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_a_finite_difference_is_the_paper_s():
    network, z, h = mlp(), torch.randn(5, 3, dtype=F64), 1e-3
    moved = torch.stack([network(z + h * row) for row in torch.eye(3, dtype=F64)])
    expected = ((moved - network(z)) / h).abs().sum()
    found = jacobian_l1(network, z, step=h)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    parameters = list(network.parameters())
    for one, other in zip(*(torch.autograd.grad(value, parameters) for value in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "step", "close"), [(F64, 1e-6, 1e-5), (F64, 1e-3, 1e-2), (torch.float32, 1e-3, 1e-2)]
)
def test_a_finite_difference_is_the_derivative_and_so_is_its_gradient(dtype, step, close):
    """Up to h f''/2, of the order of h; rounding of float32 at h = 0.001 is 1e-4 of it."""
    network, z = mlp().to(dtype), torch.randn(2, 5, 3, dtype=dtype)
    exact, found = jacobian_l1(network, z), jacobian_l1(network, z, step=step)
    torch.testing.assert_close(found, exact, rtol=close, atol=0)
    weights = [network[0].weight, network[2].weight]
    for one, other in zip(*(torch.autograd.grad(value, weights) for value in (found, exact)), strict=True):
        assert float((one - other).norm()) < 2 * close * float(other.norm())


def test_in_float32_a_step_that_is_too_small_is_wrong_upwards():
    torch.manual_seed(0)
    network, z = nn.Sequential(nn.Linear(3, 64), nn.Tanh(), nn.Linear(64, 500), nn.Sigmoid()), torch.randn(8, 3)
    exact = float(jacobian_l1(network, z).detach())
    good, bad = (float(jacobian_l1(network, z, step=step).detach()) for step in (1e-3, 1e-6))
    assert good == pytest.approx(exact, rel=1e-3) and bad > 1.02 * exact


def test_it_sees_a_rotation_of_the_latents_which_squares_do_not():
    n = 4
    columns = torch.zeros(2 * n, 2, dtype=F64)
    columns[:n, 0] = columns[n:, 1] = 1

    def rotated(angle):
        c, s = math.cos(angle), math.sin(angle)
        turn = torch.tensor([[c, -s], [s, c]], dtype=F64)
        return lambda z: z @ (columns @ turn).mT

    z = torch.zeros(1, 2, dtype=F64)
    for angle in (0.0, 0.3, 0.8):
        expected = n * 2 * (abs(math.cos(angle)) + abs(math.sin(angle)))
        assert float(jacobian_l1(rotated(angle), z)) == pytest.approx(expected, rel=1e-12)
        squares = torch.func.jacfwd(rotated(angle))(z).square().sum()
        assert float(squares) == pytest.approx(2 * n, rel=1e-12)


@pytest.mark.parametrize("decoder", [MLPDecoder(3, (1, 8, 8), hidden=[8]), ConvDecoder(3, (1, 8, 8), channels=(4, 2))])
def test_of_our_decoders_it_includes_the_sigmoid(decoder):
    decoder = decoder.double()
    z = torch.randn(2, 3, dtype=F64)
    whole = torch.func.vmap(torch.func.jacfwd(lambda row: decoder(row[None])[0]))(z)
    torch.testing.assert_close(jacobian_l1(decoder, z), whole.abs().sum(), rtol=1e-10, atol=1e-12)


def pair():
    torch.manual_seed(0)
    model = ExtendedVAE(mlp(), latent_dim=3, rho=0.9, obs_variance=0.5).double()
    return model, AVAEGuide(LinearEncoder(4, 3).double(), model)


@pytest.mark.parametrize("make", [AVAE_ELBO, IWAE_ELBO])
def test_it_is_a_term_of_the_bound_without_a_gradient_to_the_guide(make):
    model, guide = pair()
    found = []
    for penalties in ({"jacobian_l1": JacobianL1(0.3)}, {}):
        torch.manual_seed(4)
        elbo = make(num_particles=3, vectorize_particles=True, penalties=penalties)
        result = elbo.evaluate(model, guide, rows())
        gradients = [torch.autograd.grad(result.loss, list(m.parameters()), retain_graph=True) for m in (model, guide)]
        found.append((result, gradients))
    (with_it, (of_model, of_guide)), (without, (plain_model, plain_guide)) = found
    term = with_it.sites["jacobian_l1"]
    torch.testing.assert_close(with_it.loss, without.loss - term)
    torch.testing.assert_close(sum(with_it.sites.values()), -with_it.loss)
    for one, other in zip(of_guide, plain_guide, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)
    assert any(not torch.allclose(one, other) for one, other in zip(of_model, plain_model, strict=True))


def test_it_is_averaged_over_particles_and_warmed_up_with_the_kl():
    model, guide = VAE(nn.Linear(2, 4), latent_dim=2), AmortizedGuide(LinearEncoder(4, 2))
    expected = -0.5 * 6 * model.decoder.weight.abs().sum()
    for options in ({}, {"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}):
        elbo = AVAE_ELBO(penalties={"jacobian_l1": JacobianL1(0.5)}, **options)
        torch.testing.assert_close(elbo.terms(model, guide, rows().float())["jacobian_l1"], expected)
    elbo = AVAE_ELBO(penalties={"jacobian_l1": JacobianL1(0.5)}, kl_weight=0.25)
    torch.testing.assert_close(elbo.terms(model, guide, rows().float())["jacobian_l1"], 0.25 * expected)


def test_it_rises_with_the_warm_up_as_the_kl_does():
    """The paper's schedule, one step ahead: step t of T has the weight t / T, theirs (t - 1) / T."""
    model, guide = VAE(nn.Linear(2, 4), latent_dim=2), AmortizedGuide(LinearEncoder(4, 2))
    full = -0.5 * float(model.decoder.weight.detach().abs().sum())
    elbo = AVAE_ELBO(penalties={"jacobian_l1": JacobianL1(0.5)}, weights={"z": 4.0})
    options = {"steps": 5, "kl_warmup": 4, "lr": 1e-12, "log_every": 1}  # a step that moves nothing
    rows_of = fit(model, guide, rows().float(), elbo=elbo, **options).history
    assert [row["jacobian_l1"] / full for row in rows_of] == pytest.approx([0.25, 0.5, 0.75, 1, 1], rel=1e-5)


def test_without_a_weight_it_is_the_beta_vae_bit_for_bit():
    losses = []
    for options in ({}, {"jacobian_l1": 0.0}, {"jacobian_l1": 0.3}):
        torch.manual_seed(0)
        small = {"hidden": (8,), "latent_dim": 2, "image_shape": (1, 2, 2)}
        model, guide, elbo = build(settings_for({"method": "beta-vae", **small, **options}))
        data = rows().float().unflatten(1, (1, 2, 2))
        losses.append([row["loss"] for row in fit(model, guide, data, elbo=elbo, steps=3, log_every=1).history])
    assert losses[0] == losses[1] != losses[2]


def test_running_statistics_are_left_alone():
    decoder = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    model, guide = VAE(decoder, latent_dim=2).train(), AmortizedGuide(LinearEncoder(4, 2)).train()
    penalty, calls = JacobianL1(1.0), []
    elbo = AVAE_ELBO(penalties={"p": lambda *args: calls.append(decoder[1].running_mean.clone()) or penalty(*args)})
    elbo.terms(model, guide, rows().float())
    assert torch.equal(calls[0], decoder[1].running_mean)


@pytest.mark.parametrize(
    "options", [{}, {"architecture": "conv", "channels": 4}, {"method": "iwae"}, {"jacobian_step": 1e-3}]
)
def test_a_compiled_step_is_the_eager_one(options, monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)
    common = {"image_shape": (1, 8, 8), "hidden": (8,), "latent_dim": 3, "jacobian_l1": 0.1, "num_particles": 2}
    x = torch.rand(4, 1, 8, 8, dtype=F64)
    losses = []
    for compile in (True, False):
        torch.manual_seed(0)
        model, guide, elbo = build(settings_for({"method": "avae", **common, **options}))
        module = elbo(model.double(), guide.double())
        with pyro.validation_enabled(False):
            step = compile_step(module, torch.optim.Adam(module.parameters(), lr=0.01), x, compile=compile)
            losses.append(torch.stack([step(x) for _ in range(4)]))
            assert "jacobian_l1" in step.terms
    torch.testing.assert_close(*losses, rtol=1e-9, atol=1e-9)


def test_every_method_that_trains_a_decoder_takes_it():
    for name, method in METHODS.items():
        if "jacobian_l1" in method.unused:
            assert name == "avae-ss"
            continue
        small = {"hidden": (8,), "latent_dim": 2, "image_shape": (1, 4, 4), "num_particles": 1}
        model, guide, elbo = build(settings_for({"method": name, "jacobian_l1": 0.2, **small}))
        assert float(elbo.terms(model, guide, torch.rand(3, 1, 4, 4))["jacobian_l1"].detach()) < 0


def test_what_it_cannot_penalise_is_refused():
    with pytest.raises(InputError, match="gamma: expected a finite number of at least 0, got -1"):
        JacobianL1(-1)
    for step in (0, -1e-3, float("inf"), True):
        with pytest.raises(InputError, match="step: expected a finite number above 0, or None for the derivative, got"):
            JacobianL1(1.0, step=step)
        with pytest.raises(InputError, match="step: expected a finite number above 0, or None"):
            jacobian_l1(torch.sin, torch.zeros(1, 2), step=step)
    model, guide = VAE(nn.Linear(2, 4), latent_dim=2), AmortizedGuide(LinearEncoder(4, 2))
    elbo = AVAE_ELBO(penalties={"p": JacobianL1(1.0, site="w")})
    with pytest.raises(InputError, match="jacobian_l1: the guide has no site 'w'"):
        elbo.terms(model, guide, rows().float())
    elbo = AVAE_ELBO(penalties={"p": JacobianL1(1.0)})
    with pytest.raises(InputError, match="expected a model with decode"):
        elbo.terms(lambda x: model(x), guide, rows().float())
