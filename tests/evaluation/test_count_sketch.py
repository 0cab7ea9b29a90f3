"""A sketch keeps inner products on average, with the variance of its formula."""

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.evaluation import CountSketch

CPU = torch.device("cpu")


def test_inner_products_are_unbiased_with_the_variance_of_the_formula():
    size, dim, repeats = 300, 20, 6000
    a, b = torch.randn(2, size, dtype=torch.float64)
    b = b + 0.5 * a
    found = []
    for seed in range(repeats):
        one, other = CountSketch(size, dim, seed=seed, device=CPU)(torch.stack([a, b]))
        found.append(float(one @ other))
    products = torch.tensor(found, dtype=torch.float64)
    variance = float((a @ a) * (b @ b) + (a @ b) ** 2 - 2 * (a * a) @ (b * b)) / dim
    # Four standard errors of the mean; of the variance, whose own is near sqrt(2 / repeats) = 1.8 %, five.
    assert abs(float(products.mean() - a @ b)) < 4 * (variance / repeats) ** 0.5
    assert float(products.var()) == pytest.approx(variance, rel=0.1)


def test_a_sketch_is_linear_and_depends_on_its_seed_alone():
    x = torch.randn(4, 50, dtype=torch.float64)
    sketch, same, other = (CountSketch(50, 8, seed=seed, device=CPU) for seed in (0, 0, 1))
    torch.testing.assert_close(sketch(x).sum(0), sketch(x.sum(0, keepdim=True))[0])
    assert torch.equal(sketch(x), same(x)) and not torch.equal(sketch(x), other(x))


def test_no_dimension_is_refused():
    with pytest.raises(InputError, match=r"^projection: expected at least 1 dimension, got 0"):
        CountSketch(5, 0, seed=0, device=CPU)
