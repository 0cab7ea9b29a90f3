"""The search for the worst case: what it finds where that is known, and what it leaves alone."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AVAEGuide, LinearEncoder, MLPEncoder
from pyro_avae.linear_gaussian import exact_bound
from pyro_avae.models import ExtendedVAE, MLPDecoder
from pyro_avae.wasserstein import squared_wasserstein
from pyro_avae.worst_case import WorstCase


def found(view, x, encode):
    return view("x_aux", x, torch.zeros(len(x), 1), decode=encode, encode=encode)


def linear(weight):
    return lambda x: dist.Normal(x @ weight[:, None], 1.0).to_event(1)


@pytest.mark.parametrize("steps", [1, 5])
def test_a_linear_encoder_has_its_worst_case_in_a_corner(steps):
    weight = torch.tensor([1.0, -2.0, 0.5])
    x = torch.full((50, 3), 0.5)
    moved = found(WorstCase(epsilon=0.1, steps=steps), x, linear(weight)) - x
    # Either corner: the distance is symmetric. One step of 2.5 epsilon reaches it from anywhere but exactly halfway.
    signs = moved @ weight
    torch.testing.assert_close(moved, 0.1 * weight.sign() * signs.sign()[:, None])
    assert bool((signs > 0).any() and (signs < 0).any()), "the random start decides which"


def test_pixels_stay_in_the_ball_and_in_bounds():
    torch.manual_seed(0)
    encoder = MLPEncoder((1, 4, 4), 2, hidden=[8])
    x = torch.rand(20, 1, 4, 4).round()
    encode = AVAEGuide(encoder, ExtendedVAE(MLPDecoder(2, (1, 4, 4), hidden=[8]), latent_dim=2)).posterior
    near = found(WorstCase(epsilon=0.3), x, encode)
    assert bool((near >= 0).all() and (near <= 1).all() and ((near - x).abs() <= 0.3 + 1e-6).all())
    assert bool((found(WorstCase(epsilon=0.3, bounds=None), x, encode) < 0).any())


def test_more_steps_find_worse_cases():
    torch.manual_seed(0)
    encoder = MLPEncoder((1, 4, 4), 2, hidden=[32, 32])
    x = torch.rand(200, 1, 4, 4)
    encode = AVAEGuide(encoder, ExtendedVAE(MLPDecoder(2, (1, 4, 4), hidden=[8]), latent_dim=2)).posterior
    with torch.no_grad():
        origin = encode(x)
        noisy = encode(x + 0.2 * (2 * torch.rand_like(x) - 1))
    noise = squared_wasserstein(noisy, origin).mean()
    one, many = (
        squared_wasserstein(encode(found(WorstCase(epsilon=0.2, steps=steps), x, encode)), origin).mean().detach()
        for steps in (1, 20)
    )
    assert float(noise) < float(one) < float(many)


def test_the_search_leaves_no_gradient_and_lets_none_through():
    torch.manual_seed(0)
    encoder = LinearEncoder(3, 2)
    model = ExtendedVAE(nn.Linear(2, 3), latent_dim=2)
    guide = AVAEGuide(encoder, model, view=WorstCase(epsilon=0.1))
    x = torch.rand(4, 3, requires_grad=True)
    view = found(WorstCase(epsilon=0.1), x, guide.posterior)
    assert not view.requires_grad and all(p.grad is None for p in encoder.parameters())
    with torch.no_grad():
        AVAE_ELBO().loss(model, guide, x.detach())


def test_particles_share_the_view():
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Linear(2, 3), latent_dim=2)
    guide = AVAEGuide(LinearEncoder(3, 2), model, view=WorstCase(epsilon=0.1))
    loss = AVAE_ELBO(num_particles=3, vectorize_particles=True)(model, guide)(torch.rand(4, 3))
    assert bool(loss.isfinite())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon: expected a radius above 0, got 0.0"),
        ({"epsilon": 0.1, "steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"epsilon": 0.1, "step_size": -1.0}, "step_size: expected a number above 0, got -1.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        WorstCase(**options)


def test_exact_bound_says_what_to_take_instead():
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Linear(2, 3), latent_dim=2)
    guide = AVAEGuide(LinearEncoder(3, 2), model, view=WorstCase(epsilon=0.1))
    with pytest.raises(InputError, match=r"randomness outside Pyro sites: .* take Perturbed"):
        exact_bound(model, guide, torch.rand(2, 3))
