"""What the coupling does to the size of z: the bound as a function of a common scale of encoder and decoder."""

import math

import pytest
import torch
from torch import nn

from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound
from pyro_avae.models import ExtendedVAE

F64 = torch.float64
NU = 0.5


@torch.no_grad()
def sizes(model, guide, data, rho):
    """E|z|^2 and E|z' - rho z|^2 / (1 - rho^2), sums over the data, by their closed forms."""
    gain, shift = guide.encoder.linear.weight, guide.encoder.linear.bias
    loc, scale = guide.encode(data)
    variance = scale[0] ** 2
    kernel = gain @ model.decoder.weight - rho * torch.eye(len(gain), dtype=F64)
    off = loc @ kernel.T + gain @ model.decoder.bias + shift
    noise = (kernel.square() @ variance).sum() + NU * gain.square().sum() + variance.sum()
    return loc.square().sum() + len(data) * variance.sum(), (off.square().sum() + len(data) * noise) / (1 - rho**2)


@torch.no_grad()
def rescale(model, guide, factor):
    """z to factor * z everywhere; images and their views stay what they are."""
    model.decoder.weight /= factor
    guide.encoder.linear.weight *= factor
    guide.encoder.linear.bias *= factor
    guide.encoder.log_scale += math.log(factor)


@pytest.mark.parametrize("factor", [0.5, 1.7])
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.975])
def test_size_and_weighted_error_share_a_budget_of_two_an_axis(rho, factor):
    """loss(a) = a^2 (size + error) / 2 - 2 L N log a + rest: of all scales the best one has size + error = 2 L N."""
    torch.manual_seed(0)
    data = torch.randn(7, 5, dtype=F64)
    model = ExtendedVAE(nn.Linear(3, 5), latent_dim=3, rho=rho, obs_variance=NU).double()
    guide = AVAEGuide(LinearEncoder(5, 3).double(), model)
    nn.init.normal_(guide.encoder.log_scale, std=0.3)
    both = sum(sizes(model, guide, data, rho))
    before = exact_bound(model, guide, data)
    rescale(model, guide, factor)
    predicted = 0.5 * (factor**2 - 1) * both - 2 * 3 * len(data) * math.log(factor)
    torch.testing.assert_close(exact_bound(model, guide, data) - before, predicted, rtol=1e-10, atol=1e-9)
