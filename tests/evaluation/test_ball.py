"""The balls: points stay in them, and PGD in them reaches worst cases known in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation import BALLS, L2, LINF, Ball, pgd
from pyro_avae.evaluation.ball import check_radii


def distance(ball: Ball, one: Tensor, two: Tensor) -> Tensor:
    return (one - two).flatten(1).norm(dim=1, p={"Linf": torch.inf, "L2": 2.0}[ball.name])


def linear(weight: Tensor, bias: Tensor | float):
    def classifier(x: Tensor) -> Tensor:
        margin = 0.5 * (x.flatten(1) @ weight + bias)
        return torch.stack([margin, -margin], -1)

    return classifier


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), epsilon=st.floats(0.0, 1.0))
def test_every_point_is_in_the_ball_and_in_the_box(ball: Ball, seed: int, epsilon: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(20, 1, 3, 3, generator=generator).mul(2).sub(0.5).clamp(0, 1)  # some pixels saturated
    candidates = x + torch.randn(x.shape, generator=generator)
    for point in (ball.project(candidates, x, epsilon), ball.surface(x, epsilon, generator)):
        # Each subtraction and norm of nine float32 pixels rounds by some units in the last place of 1.
        assert float(distance(ball, point, x).max()) <= epsilon + 1e-6
        assert float(point.min()) >= 0.0 and float(point.max()) <= 1.0


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_a_point_of_the_ball_stays_where_it_is(ball: Ball) -> None:
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    inside = x + 0.01
    assert torch.equal(ball.project(inside, x, 0.1), inside)


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_surface_and_direction_have_the_norm_they_should(ball: Ball) -> None:
    x = torch.full((50, 2, 3), 0.5, dtype=torch.float64)
    zero = torch.zeros_like(x)
    surface = ball.surface(x, 0.2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(distance(ball, surface, x), torch.full((50,), 0.2, dtype=torch.float64))
    gradient = 1e-200 * torch.randn_like(x)  # its squares underflow
    torch.testing.assert_close(distance(ball, ball.direction(gradient), zero), torch.ones(50, dtype=torch.float64))
    assert torch.equal(ball.direction(zero), zero)


@pytest.mark.parametrize("ball", BALLS.values(), ids=BALLS)
def test_a_step_is_a_projected_move_and_one_of_no_length_none_at_all(ball: Ball) -> None:
    generator = torch.Generator().manual_seed(0)
    x, gradient = torch.rand(40, 2, 5, generator=generator), torch.randn(40, 2, 5, generator=generator)
    current, limits = ball.surface(x, 0.3, generator), ball.limits(x, 0.3)
    lengths = 0.2 * (torch.arange(40) % 2)
    moved = ball.step(current, gradient, lengths, limits, 0.3)
    expected = ball.project(current + 0.2 * ball.direction(gradient), x, 0.3)
    torch.testing.assert_close(moved[1::2], expected[1::2], rtol=0, atol=1e-6)
    assert torch.equal(moved[::2], current[::2])


@pytest.mark.parametrize(("ball", "dual"), [(LINF, 1), (L2, 2)])
def test_the_margin_falls_by_epsilon_times_the_dual_norm_inside_the_box(ball: Ball, dual: int) -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    margin = 0.25
    bias = margin - float(x @ weight)
    just = margin / float(weight.norm(p=dual))
    for epsilon, stands in ((just * (1 - 1e-6), True), (just * (1 + 1e-6), False)):
        result = pgd(linear(weight, bias), x, torch.tensor([0]), epsilon, ball=ball, steps=40)
        assert result.correct.tolist() == [stands]


def test_l2_projection_leaves_saturated_pixels_out_of_the_distance() -> None:
    x = torch.tensor([[1.0, 0.25]])
    assert torch.equal(L2.project(torch.tensor([[9.0, 0.5]]), x, 0.25), torch.tensor([[1.0, 0.5]]))


def test_l2_pgd_gives_the_radius_of_saturated_pixels_to_the_others() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, generator=generator, dtype=torch.float64)
    x = torch.rand(40, 30, generator=generator, dtype=torch.float64).mul(2).sub(0.5).clamp(0, 1)
    epsilon = 0.5

    # Against class 0 the exact worst case is clamp(x - t w) with t such that its distance is epsilon.
    low, high = torch.zeros(40, 1, dtype=torch.float64), torch.full((40, 1), 1e3, dtype=torch.float64)
    for _ in range(200):
        middle = 0.5 * (low + high)
        far = ((x - middle * weight).clamp(0, 1) - x).norm(dim=1, keepdim=True) > epsilon
        low, high = torch.where(far, low, middle), torch.where(far, middle, high)
    worst = (x - low * weight).clamp(0, 1) @ weight

    # Each image is given a bias that puts its worst case just below, or just above, the boundary; 2 % of the change
    # is what forty shortening steps may leave.
    slack = 0.02 * (x @ weight - worst)
    for sign, stands in ((-1.0, False), (1.0, True)):
        bias = -worst + sign * slack
        left = [
            pgd(linear(weight, bias[i]), x[i : i + 1], torch.tensor([0]), epsilon, ball=L2, restarts=1, steps=40)
            for i in range(40)
        ]
        assert [bool(one.correct) for one in left] == [stands] * 40


def test_radii_of_each_norm() -> None:
    assert check_radii("r", [0, 2.5], L2) == (0.0, 2.5)
    with pytest.raises(InputError, match=r"^r: expected L∞ radii in \[0, 1\] .* got 2.5"):
        check_radii("r", [0, 2.5], LINF)
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"finite L2 radii of at least 0, got {value}"):
            check_radii("r", [value], L2)
    with pytest.raises(InputError, match="each radius once"):
        check_radii("r", [1, 1.0], L2)
