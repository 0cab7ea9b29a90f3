"""A probe on posterior samples: its probabilities and gradients against quadrature, and attacks on it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation import LinearProbe, SampledClassifier, pgd
from pyro_avae.evaluation.sampled import posterior_sample
from pyro_avae.guides import AmortizedGuide


class Encoder(nn.Module):
    """q(z|x) = N(Wx, s(x)²), s constant or given as a function."""

    def __init__(self, weight: Tensor, scale) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(weight), scale

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc = x.flatten(1) @ self.weight.T
        return loc, self.scale(x) * torch.ones_like(loc)


def binary_probe(direction: Tensor) -> LinearProbe:
    """Logits (0, v'z)."""
    weight = torch.stack([torch.zeros_like(direction), direction])
    zeros = torch.zeros(len(direction), dtype=direction.dtype)
    return LinearProbe(weight, zeros[:1].expand(2), zeros, scale=1.0, c=1.0, held_out_accuracy=1.0, converged=True)


def quadrature(function, mean: Tensor, scale: float) -> Tensor:
    """E function(a), a ~ N(mean, scale²), by Gauss-Hermite with eighty nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    values = function(mean[:, None] + scale * torch.as_tensor(nodes))
    return (values * torch.as_tensor(weights / weights.sum())).sum(1)


@pytest.fixture
def linear_case():
    """A linear encoder of five pixels into three latents of scale 0.7, and a probe along one direction."""
    weight = torch.randn(3, 5, dtype=torch.float64)
    direction = torch.randn(3, dtype=torch.float64)
    guide = AmortizedGuide(Encoder(weight, lambda x: 0.7))
    return guide, binary_probe(direction), weight.T @ direction, 0.7 * float(direction.norm())


def test_probabilities_of_a_linear_encoder_are_those_of_quadrature(linear_case) -> None:
    guide, probe, slope, scale = linear_case
    x = torch.rand(8, 5, dtype=torch.float64)
    count = 20_000
    found = SampledClassifier(guide, probe, num_samples=count)(x)[:, 1].exp()
    expected = quadrature(torch.sigmoid, x @ slope, scale)
    second = quadrature(lambda a: torch.sigmoid(a) ** 2, x @ slope, scale)
    error = ((second - expected**2) / count).sqrt()
    assert bool(((found - expected).abs() < 5 * error).all())


def test_the_average_gradient_of_a_linear_encoder_is_that_of_quadrature(linear_case) -> None:
    guide, probe, slope, scale = linear_case
    x = torch.rand(4, 5, dtype=torch.float64, requires_grad=True)
    count = 40_000
    (found,) = torch.autograd.grad(SampledClassifier(guide, probe, num_samples=count)(x)[:, 1].exp().sum(), x)

    def derivative(a: Tensor) -> Tensor:
        return torch.sigmoid(a) * torch.sigmoid(-a)

    mean = (x @ slope).detach()
    expected = quadrature(derivative, mean, scale)
    spread = (quadrature(lambda a: derivative(a) ** 2, mean, scale) - expected**2).sqrt() / count**0.5
    torch.testing.assert_close(found / slope, found[:, :1] / slope[:1] * torch.ones_like(found))  # along the slope
    assert bool(((found[:, 0] / slope[0] - expected).abs() < 5 * spread).all())


def test_linear_encoders_fall_where_the_mean_does(linear_case) -> None:
    # The average of sigmoid(a), a normal, is above 1/2 exactly where the mean of a is above 0.
    guide, probe, slope, _ = linear_case
    x = torch.full((1, 5), 0.5, dtype=torch.float64)
    weight, bias = slope / slope.norm(), float(x[0] @ slope) - 0.8 * float(slope.norm())
    probe.bias = nn.Parameter(torch.tensor([0.0, -bias], dtype=torch.float64), requires_grad=False)
    just = 0.8 / float(weight.abs().sum())  # margin over dual norm: 0.8 |v'W| / |v'W|_1
    classifier = SampledClassifier(guide, probe, num_samples=64, verdict_samples=4000)
    for epsilon, stands in ((0.8 * just, True), (min(1.2 * just, 0.5), False)):
        result = pgd(classifier, x, torch.tensor([1]), epsilon, steps=20, verdict=classifier.predict)
        assert result.correct.tolist() == [stands]


def noisy_pixel() -> AmortizedGuide:
    """z = 1 + 0.1 x0 + 2 (0.1 + x1) e: brighter x1 is more noise, brighter x0 a little more evidence for class 1."""

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return 1.0 + 0.1 * x[:, :1], 2.0 * (0.1 + x[:, 1:])

    return AmortizedGuide(Noisy())


def test_one_sample_is_often_wrong_in_sign_where_the_expectation_is_right() -> None:
    guide, probe = noisy_pixel(), binary_probe(torch.tensor([1.0]))
    x = torch.full((1000, 2), 0.5, requires_grad=True)

    def noise_slope(count: int) -> Tensor:
        """d p(class 1) / d x1 of each of a thousand copies of one image: more noise, less certainty, below 0."""
        log_probability = SampledClassifier(guide, probe, num_samples=count)(x)[:, 1]
        return torch.autograd.grad(log_probability.exp().sum(), x)[0][:, 1]

    single, many = noise_slope(1), noise_slope(2000)
    exact = quadrature(torch.sigmoid, torch.tensor([1.05, 1.05]).double(), 2 * 0.61)[0]
    exact = (exact - quadrature(torch.sigmoid, torch.tensor([1.05]).double(), 2 * 0.59)[0]) / 0.02
    assert float(exact) < -0.1
    assert 0.4 < float((single > 0).double().mean()) < 0.6, "one sample says the wrong direction about half the time"
    assert bool((many < 0).all()), "the average over two thousand never does"
    error = float(single.std()) / 1000**0.5
    assert abs(float(single.mean()) - float(exact)) < 5 * error + 1e-3  # the central difference is off by 1e-4


def test_pgd_finds_the_direction_with_many_samples_and_counts_no_lucky_draw() -> None:
    guide, probe = noisy_pixel(), binary_probe(torch.tensor([1.0]))
    x, labels = torch.full((40, 2), 0.5), torch.ones(40, dtype=torch.long)

    def lowered(count: int) -> Tensor:
        classifier = SampledClassifier(guide, probe, num_samples=count, verdict_samples=3000)
        result = pgd(classifier, x, labels, 0.3, steps=10, restarts=1, verdict=classifier.predict)
        # v'z has mean above 1 everywhere: the expected class is 1 in the whole ball, and every image has to stand.
        assert bool(result.correct.all())
        return result.adversarial[:, 1]

    hasty = SampledClassifier(guide, probe, num_samples=1)
    assert bool((hasty(x).argmax(-1) != 1).any()), "single draws are wrong, and would be counted as fallen"
    torch.testing.assert_close(lowered(500), torch.full((40,), 0.8), atol=0.02, rtol=0)
    assert float((lowered(1) - 0.8).abs().mean()) > 0.05, "one sample wanders"


def test_features_are_draws_of_the_posterior() -> None:
    guide = AmortizedGuide(Encoder(torch.eye(2), lambda x: 0.5))
    z = posterior_sample(guide, torch.full((20_000, 2), 0.3))
    torch.testing.assert_close(z.mean(0), torch.full((2,), 0.3), atol=5 * 0.5 / 20_000**0.5, rtol=0)
    torch.testing.assert_close(z.std(0), torch.full((2,), 0.5), atol=5 * 0.5 / 40_000**0.5, rtol=0)


@pytest.mark.parametrize("name", ["num_samples", "verdict_samples"])
def test_no_samples_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"{name}: expected at least 1, got 0"):
        SampledClassifier(noisy_pixel(), binary_probe(torch.tensor([1.0])), **{name: 0})
