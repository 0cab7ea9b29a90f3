"""The three dots: where the discs are, how their rims look, and that training and test images stay what they are."""

import math

import numpy as np
import pytest
import torch

from pyro_avae import AVAE_ELBO, compile_step
from pyro_avae.data import THREE_DOTS, load_dataset
from pyro_avae.data.three_dots import ThreeDotsSplit
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, MLPEncoder
from pyro_avae.models import VAE, Gaussian, MLPDecoder
from pyro_avae.training.sources import as_source


@pytest.fixture(scope="module")
def data():
    return load_dataset("three-dots")


def factors(count, seed=0):
    return torch.randint(64, (count, 6), generator=torch.Generator().manual_seed(seed))


def averaged_over_points(row, points=10):
    """The authors' way, point by point: black where any disc covers the point, then the mean over each pixel."""
    at = (np.arange(64 * points) + 0.5) / points
    x, y = np.meshgrid(at, at)
    white = np.ones_like(x, dtype=bool)
    for dot in range(3):
        cx, cy = (64 * float(row[2 * dot + axis]) / 63 for axis in (0, 1))
        white &= (x - cx) ** 2 + (y - cy) ** 2 > (0.08 * 64) ** 2
    return white.reshape(64, points, 64, points).mean((1, 3))


def test_a_pixel_is_grey_by_what_is_covered_of_it():
    rows = factors(6)
    for row, image in zip(rows.tolist(), THREE_DOTS.render(rows), strict=True):
        difference = np.abs(image[0].numpy() - averaged_over_points(row))
        # Where two rims cross in a pixel both count in the average, the nearer one here.
        assert np.quantile(difference, 0.999) < 0.08 and difference.max() < 0.4 and difference.mean() < 1e-3


def test_a_single_rim_is_within_the_stated_distance():
    rows = factors(8)[:, :2].repeat(1, 3)
    for row, image in zip(rows.tolist(), THREE_DOTS.render(rows), strict=True):
        assert np.abs(image[0].numpy() - averaged_over_points(row)).max() < 0.08


def test_the_first_factor_is_across_and_the_second_is_down():
    (image,) = THREE_DOTS.render(torch.tensor([[60, 10, 60, 10, 60, 10]]))
    row, column = (1 - image[0]).sum(1), (1 - image[0]).sum(0)
    places = torch.arange(64) + 0.5
    assert float((row * places).sum() / row.sum()) == pytest.approx(64 * 10 / 63, abs=0.02)
    assert int(column.argmax()) >= 60
    whole = THREE_DOTS.render(torch.tensor([[30, 30] * 3]))
    assert float((1 - whole).sum()) == pytest.approx(math.pi * (0.08 * 64) ** 2, rel=0.01)


def test_the_order_of_the_discs_does_not_show():
    rows = factors(20)
    assert torch.equal(THREE_DOTS.render(rows), THREE_DOTS.render(rows.unflatten(1, (3, 2)).flip(1).flatten(1)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_any_integers_do(dtype):
    rows = factors(4)
    assert torch.equal(THREE_DOTS.render(rows.to(dtype)), THREE_DOTS.render(rows.double()))


@pytest.mark.parametrize("shape", [(6,), (3, 5), (2, 3, 2)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(InputError, match=r"factors: expected shape \(N, 6\), got"):
        THREE_DOTS.render(torch.zeros(shape))


def test_the_sets_are_fixed_uniform_and_apart(data):
    again = load_dataset("three-dots")
    assert (data.shape, len(data.train), len(data.test), data.tasks) == ((1, 64, 64), 500_000, 10_000, {})
    for one, other in ((data.train, again.train), (data.test, again.test)):
        assert torch.equal(one.images, other.images)
    kept = data.train.images.flatten(1)
    for factor in kept.T:
        counts = torch.bincount(factor, minlength=64)
        expected = len(kept) / 64
        # chi^2 of 63 degrees of freedom: above 120 once in 50,000 fair draws.
        assert float(((counts - expected) ** 2 / expected).sum()) < 120 and len(counts) == 64
    assert data.train.images[0].flatten().tolist() != data.test.images[0].flatten().tolist()


def test_images_are_drawn_from_the_factors_that_are_kept(data):
    places = torch.tensor([7, 499_999, 7])
    expected = THREE_DOTS.render(data.train.images.flatten(1)[places])
    for found, labels in (data.train.batch(places, None), data.train.fixed_batch(places)):
        assert torch.equal(found, expected) and labels == {}
    source = as_source(data, torch.device("cpu"))
    assert torch.equal(source.images(source.argument(lambda step: places, 0)), expected)
    assert data.train.images.nbytes == 6 * 500_000


def test_a_limit_keeps_the_first(data):
    few = data.limit(5)
    assert isinstance(few.train, ThreeDotsSplit) and len(few.train) == 5
    assert torch.equal(few.train.images, data.train.images[:5])


def pair():
    """A decoder that makes grey of every z."""
    decoder = MLPDecoder(2, (1, 64, 64), hidden=[4])
    for parameter in decoder.parameters():
        torch.nn.init.zeros_(parameter)
    return VAE(decoder, latent_dim=2), AmortizedGuide(MLPEncoder((1, 64, 64), 2, hidden=[4]))


def test_a_traced_step_draws_them(data):
    module = AVAE_ELBO()(*pair())
    source, places = as_source(data, torch.device("cpu")), torch.tensor([3, 9])
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-9)
    step = compile_step(module, optimizer, places, prepare=source.images, compile=False)
    found = -float(step(places)) - float(step.terms["z"]), float(step.terms["x"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    # With a decoder that ignores z the likelihood is that of the images alone.
    grey = torch.full((2, 1, 64, 64), 0.5)
    expected = float(Gaussian()(grey).log_prob(source.images(places)).sum())
    assert found[1] == pytest.approx(expected, rel=1e-5)
