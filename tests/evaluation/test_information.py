"""Mutual information and active latents: closed forms on linear-Gaussian encoders, and the limits."""

import math

import pytest
import torch
from torch import nn

from pyro_avae.evaluation.information import active_units, mutual_information
from pyro_avae.guides import AmortizedGuide

F64 = torch.float64


class Linear(nn.Module):
    """loc = A x; scale s, or a Cholesky factor."""

    def __init__(self, gain, scale):
        super().__init__()
        self.gain, self.scale = nn.Parameter(gain), scale

    def forward(self, x):
        loc = x @ self.gain.mT
        return loc, self.scale.expand(*loc.shape[:-1], *self.scale.shape)


@pytest.mark.parametrize(
    "scale", [torch.tensor([1.0, 0.8], dtype=F64), torch.tensor([[1.0, 0], [0.3, 0.9]], dtype=F64)]
)
def test_of_a_linear_encoder_and_gaussian_data_it_is_the_closed_form(scale):
    torch.manual_seed(0)
    gain = 0.7 * torch.randn(2, 3, dtype=F64)
    found = mutual_information(AmortizedGuide(Linear(gain, scale)), torch.randn(4000, 3, dtype=F64))
    noise = scale @ scale.mT if scale.dim() == 2 else torch.diag(scale**2)
    exact = 0.5 * float(torch.logdet(gain @ gain.mT + noise) - torch.logdet(noise))
    # 4000 images in place of the population change the mixture by about e^I / N.
    assert abs(found.mean - exact) < 4 * found.standard_error + math.exp(exact) / 4000
    assert 0.3 < exact < 3


def test_an_encoder_that_looks_at_nothing_tells_nothing():
    guide = AmortizedGuide(Linear(torch.zeros(2, 3, dtype=F64), torch.ones(2, dtype=F64)))
    found = mutual_information(guide, torch.randn(50, 3, dtype=F64))
    assert found.mean == pytest.approx(0, abs=1e-12) and found.standard_error == pytest.approx(0, abs=1e-12)


def test_images_that_are_told_apart_tell_log_n():
    guide = AmortizedGuide(Linear(1e3 * torch.eye(3, dtype=F64), 1e-3 * torch.ones(3, dtype=F64)))
    found = mutual_information(guide, torch.randn(250, 3, dtype=F64))
    assert found.mean == pytest.approx(math.log(250)) and found.at_most == math.log(250)


def test_latents_in_use_are_those_whose_mean_moves():
    torch.manual_seed(0)
    gain = torch.diag(torch.tensor([1.0, 0.2, 0.05, 0.0], dtype=F64))
    guide = AmortizedGuide(Linear(gain, 0.3 * torch.ones(4, dtype=F64)))
    assert active_units(guide, torch.randn(2000, 4, dtype=F64)) == 2  # variances 1, 0.04, 0.0025, 0
