"""Affine maps of images: where pixels go, and that each image has its own."""

import math

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.transformations import RandomAffine

F64 = torch.float64


def fixed(monkeypatch, *values):
    """Have the next draws be these uniform numbers: angle, scale, shift to the right, shift down."""
    numbers = torch.tensor(values, dtype=F64)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: numbers[:, None].expand(*size))


def image(rows, columns, height=9, width=9):
    x = torch.zeros(1, 1, height, width, dtype=F64)
    x[0, 0, rows, columns] = 1.0
    return x


def place(x):
    """Centre of mass, (row, column)."""
    total = x.sum()
    rows, columns = torch.arange(x.shape[-2], dtype=x.dtype), torch.arange(x.shape[-1], dtype=x.dtype)
    return float((x.sum((0, 1, 3)) @ rows) / total), float((x.sum((0, 1, 2)) @ columns) / total)


def test_a_shift_moves_right_and_down(monkeypatch):
    fixed(monkeypatch, 0.5, 0.5, 1.0, 1.0)
    moved = RandomAffine(degrees=0, scale=(1, 1), translate=2 / 9)(image(3, 4))
    assert place(moved) == pytest.approx((5, 6))


def test_a_quarter_turn(monkeypatch):
    fixed(monkeypatch, 1.0, 0.5, 0.5, 0.5)
    moved = RandomAffine(degrees=90, scale=(1, 1), translate=0)(image(4, 7))
    assert place(moved) == pytest.approx((7, 4))  # from the right of the centre to below it


def test_a_quarter_turn_of_an_oblong_image_turns_pixels(monkeypatch):
    fixed(monkeypatch, 1.0, 0.5, 0.5, 0.5)
    moved = RandomAffine(degrees=90, scale=(1, 1), translate=0)(image(4, 8, width=13))
    assert place(moved) == pytest.approx((6, 6))


def test_a_factor_moves_away_from_the_centre(monkeypatch):
    fixed(monkeypatch, 0.5, 1.0, 0.5, 0.5)
    moved = RandomAffine(degrees=0, scale=(1, 2), translate=0)(image(4, 5))
    assert place(moved) == pytest.approx((4, 6))


def test_shift_and_turn_together_turn_first(monkeypatch):
    fixed(monkeypatch, 1.0, 0.5, 1.0, 0.5)
    moved = RandomAffine(degrees=90, scale=(1, 1), translate=2 / 9)(image(4, 6))
    assert place(moved) == pytest.approx((6, 6))


def test_each_image_has_its_own_and_stays_within_bounds():
    torch.manual_seed(0)
    x = image(4, 6).expand(64, 1, 9, 9)
    moved = RandomAffine(degrees=90, scale=(1, 1), translate=0)(x)
    angles = [math.atan2(row - 4, column - 4) for row, column in map(place, moved[:, None])]
    assert max(angles) <= math.pi / 2 + 0.2 and min(angles) >= -math.pi / 2 - 0.2
    assert len({round(angle, 3) for angle in angles}) > 40
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1


def test_the_nearest_pixel_makes_no_new_values():
    torch.manual_seed(0)
    x = torch.rand(8, 3, 12, 12).round()
    moved = RandomAffine(interpolation="nearest")(x)
    assert set(moved.unique().tolist()) == {0.0, 1.0} and not torch.equal(moved, x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"degrees": 200}, "degrees: expected a number in"),
        ({"translate": 1.0}, "translate: expected a number in"),
        ({"scale": (0.0, 1.0)}, "scale: expected 0 < low <= high"),
        ({"scale": (2.0, 1.0)}, "scale: expected 0 < low <= high"),
        ({"interpolation": "cubic"}, "interpolation: expected bilinear or nearest"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(InputError, match=message):
        RandomAffine(**options)


def test_what_is_no_batch_of_images():
    with pytest.raises(InputError, match="x: expected a batch of images"):
        RandomAffine()(torch.zeros(3, 5))
