"""Noise and the single step on linear classifiers, where both have closed forms."""

import pytest
import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation import L2, LINF, Ball, noise, one_step

WEIGHT = torch.tensor([1.0, -2.0, 0.5])


def classifier(x: Tensor) -> Tensor:
    """Class 0 where w'x > -0.5."""
    margin = x @ WEIGHT + 0.5
    return torch.stack([margin, -margin], -1)


def predict(x: Tensor) -> Tensor:
    return classifier(x).argmax(-1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("ball", "dual"), [(LINF, 1), (L2, 2)])
def test_one_step_is_exact_on_a_linear_classifier(ball: Ball, dual: int) -> None:
    x, labels = torch.full((1, 3), 0.5), torch.tensor([0])
    just = 0.25 / float(WEIGHT.norm(p=dual))  # the margin is w'x + 0.5 = 0.25
    for epsilon, stands in ((0.999 * just, True), (1.001 * just, False)):
        assert one_step(classifier, predict, x, labels, epsilon, ball=ball).correct.tolist() == [stands]


def test_a_step_of_no_length_asks_for_no_gradient() -> None:
    def refused(x: Tensor) -> Tensor:
        raise AssertionError("at radius 0 there is nothing to attack")

    x, labels = torch.full((2, 3), 0.5), torch.tensor([0, 1])
    result = one_step(refused, predict, x, labels, 0.0)
    assert result.correct.tolist() == [True, False]
    assert torch.equal(result.adversarial, x)


@pytest.mark.parametrize("draws", [1, 3])
def test_noise_is_the_worst_of_its_corners(draws: int) -> None:
    count = 8000
    x, labels = torch.full((count, 3), 0.5), torch.zeros(count, dtype=torch.long)
    # Margin 0.25 + 0.12 (±1 ±2 ±0.5): below 0 for the corners of sum -3.5 and -2.5, two of eight.
    result = noise(predict, x, labels, 0.12, draws=draws, generator=seeded())
    expected = 0.75**draws
    error = (expected * (1 - expected) / count) ** 0.5
    assert abs(float(result.correct.double().mean()) - expected) < 4 * error
    assert torch.equal(predict(result.adversarial) == 0, result.correct)


def test_noise_on_the_sphere_has_the_share_of_a_cap() -> None:
    count = 8000
    x, labels = torch.full((count, 3), 0.5), torch.zeros(count, dtype=torch.long)
    # In three dimensions a coordinate of a random unit vector is uniform on [-1, 1].
    epsilon = 0.2
    expected = 0.5 * (1 + 0.25 / (epsilon * float(WEIGHT.norm())))
    result = noise(predict, x, labels, epsilon, ball=L2, draws=1, generator=seeded())
    assert abs(float(result.correct.double().mean()) - expected) < 4 * (expected * (1 - expected) / count) ** 0.5


def test_radius_zero_is_the_clean_image() -> None:
    x, labels = torch.rand(20, 3), torch.arange(20) % 2
    clean = predict(x) == labels
    for result in (noise(predict, x, labels, 0.0), one_step(classifier, predict, x, labels, 0.0)):
        assert torch.equal(result.correct, clean)
        assert torch.equal(result.adversarial, x)


def test_the_generator_decides() -> None:
    x, labels = torch.full((50, 3), 0.5), torch.zeros(50, dtype=torch.long)
    before = torch.get_rng_state()
    one, two = (noise(predict, x, labels, 0.12, draws=2, generator=seeded()).adversarial for _ in range(2))
    assert torch.equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


def test_images_outside_the_box_are_refused() -> None:
    x, labels = torch.full((1, 3), 255.0), torch.tensor([0])
    with pytest.raises(InputError, match=r"noise: expected pixels in \[0, 1\], got 255"):
        noise(predict, x, labels, 0.1)
    with pytest.raises(InputError, match=r"one step: expected pixels in \[0, 1\], got 255"):
        one_step(classifier, predict, x, labels, 0.1)
