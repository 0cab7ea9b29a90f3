"""The margin of r-robustness of a linear pair, where it solves one equation."""

import json
import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from pyro_avae.errors import InputError
from pyro_avae.evaluation import robustness_margin
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import VAE

GAIN = torch.tensor([1.0, -2.0, 0.5, -0.8, 1.4, 0.3]).double()
WEIGHT = torch.tensor([0.6, 0.2, -0.5, 0.1, 0.3, -0.4]).double()


def linear_pair(*, scale):
    """q(z|x) = N(gain·x, scale²), decoder z times a vector."""
    encoder = LinearEncoder.from_affine(
        GAIN[None], torch.zeros(1).double(), torch.full((1, 1), scale, dtype=torch.float64)
    )
    decoder = torch.nn.Linear(1, len(WEIGHT)).double()
    with torch.no_grad():
        decoder.weight.copy_(WEIGHT[:, None])
    return VAE(decoder, latent_dim=1), AmortizedGuide(encoder)


def exact_margin(r, scale):
    """The norm of delta along the gain at which P(|N(m, 2 scale²)| <= r / |w|) = 1/2, and dP/dnorm there."""
    reach, spread = r / float(WEIGHT.norm()), math.sqrt(2) * scale

    def probability(shift):
        return norm.cdf((reach - shift) / spread) - norm.cdf((-reach - shift) / spread)

    shift = brentq(lambda m: probability(m) - 0.5, 0.0, 10 * (reach + spread))
    slope = (norm.pdf((-reach - shift) / spread) - norm.pdf((reach - shift) / spread)) / spread
    size = float(GAIN.norm())
    return shift / size, slope * size


@pytest.mark.parametrize("scale", [0.1, 0.4])
def test_a_linear_pair_has_its_exact_margin(scale):
    model, guide = linear_pair(scale=scale)
    exact, slope = exact_margin(0.5, scale)
    assert 0.1 < exact < 0.4  # within the pixels from the middle
    x = torch.full((3, 6), 0.5, dtype=torch.float64)
    samples = 20_000
    result = robustness_margin(
        model, guide, x, r=0.5, max_radius=1.0, restarts=1, num_samples=samples, bisections=12, seed=3
    )
    # 4 standard errors of the probability (0.5 / sqrt(S)) through the slope; 0.1 % for the direction, 2^-12 the grid
    tolerance = 4 * 0.5 / math.sqrt(samples) / abs(slope) + 1e-3 * exact + 2**-12
    assert tolerance < 0.12 * exact  # at 0.4, one noise instead of two would be 40 % off
    for margin in result["margins"]:
        assert margin == pytest.approx(exact, abs=tolerance)
    assert result["fraction_at_limit"] == result["fraction_zero"] == 0.0
    assert json.loads(json.dumps(result)) == result


def test_without_posterior_noise_the_margin_is_a_ratio():
    """P is then 0 or 1: the margin is r / (|w| |gain|), up to the last halving and the attack's direction."""
    model, guide = linear_pair(scale=1e-6)
    exact = 0.4 / float(WEIGHT.norm() * GAIN.norm())
    x = torch.full((4, 6), 0.5, dtype=torch.float64)
    result = robustness_margin(model, guide, x, r=0.4, max_radius=1.0, restarts=2, num_samples=4, bisections=10)
    for margin in result["margins"]:
        assert exact <= margin <= exact * 1.005 + 2**-10


def test_the_pixels_bound_the_attack():
    """At a corner a change along the gain moves the pixels of one set, one against it the others: the larger counts."""
    model, guide = linear_pair(scale=1e-6)
    along = torch.tensor([True, True, True, True, False, True])
    x = torch.where(along == (GAIN > 0), 0.0, 1.0).double()[None]
    r = 0.4
    exact = r / float(WEIGHT.norm() * GAIN[along].norm())
    result = robustness_margin(model, guide, x, r=r, max_radius=1.0, restarts=4, num_samples=4, bisections=10)
    assert exact <= result["margins"][0] <= exact * 1.005 + 2**-10


def test_what_nothing_breaks_counts_with_the_largest_radius():
    model, guide = linear_pair(scale=1e-6)
    x = torch.full((2, 6), 0.5, dtype=torch.float64)
    r = 1.01 * 0.2 * float(WEIGHT.norm() * GAIN.norm())
    result = robustness_margin(model, guide, x, r=r, max_radius=0.2, restarts=2, num_samples=4)
    assert result["margins"] == [0.2, 0.2] and result["fraction_at_limit"] == 1.0


def test_posterior_noise_alone_can_break_an_image():
    model, guide = linear_pair(scale=1.0)
    x = torch.full((3, 6), 0.5, dtype=torch.float64)
    result = robustness_margin(model, guide, x, r=0.1, restarts=1, steps=3, num_samples=50)
    assert result["margins"] == [0.0] * 3 and result["fraction_zero"] == 1.0


def test_a_seed_gives_one_result_and_a_larger_r_a_larger_margin(trained):
    x, _ = trained.data.test.fixed_batch(torch.arange(4))
    before = torch.get_rng_state()

    def run(r, seed):
        return robustness_margin(
            trained.model, trained.guide, x, r=r, steps=8, restarts=1, num_samples=40, bisections=5, seed=seed
        )

    first = run(10.0, 0)
    assert run(10.0, 0) == first
    assert 0.0 < first["margin"]["median"] < 6.0
    assert run(13.0, 0)["margin"]["mean"] > first["margin"]["mean"]
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"r": 0.0}, "r: expected a finite number above 0"),
        ({"r": float("nan")}, "r: expected a finite number above 0"),
        ({"max_radius": -1.0}, "max_radius: expected a finite number"),
        ({"num_samples": 0}, "num_samples: expected at least 1"),
        ({"bisections": 0}, "bisections: expected at least 1"),
        ({"steps": 0}, "steps: expected at least 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    model, guide = linear_pair(scale=0.1)
    with pytest.raises(InputError, match=message):
        robustness_margin(model, guide, torch.full((2, 6), 0.5).double(), **{"r": 1.0, **options})
