"""The discretised mixture of logistics."""

import math

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.models import DiscretizedLogisticMixture, LogisticMixture

F64 = torch.float64


def mixture(*, levels=256, seed=0, batch=()):
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, 3)
    draw = lambda: torch.randn(shape, generator=generator, dtype=F64)  # noqa: E731
    return DiscretizedLogisticMixture(draw(), 0.5 + 0.4 * draw(), -3 + 0.5 * draw(), levels=levels)


@pytest.mark.parametrize("levels", [2, 5, 256])
def test_it_sums_to_one_and_its_mean_is_the_mean(levels):
    d = mixture(levels=levels)
    x = torch.arange(levels, dtype=F64) / (levels - 1)
    p = d.log_prob(x).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-12)
    assert float((p * x).sum()) == pytest.approx(float(d.mean), abs=1e-12)


def test_bins_are_differences_of_the_distribution_function():
    """Written out with sigmoids, in float64 at moderate values."""
    d, levels = mixture(levels=9), 9
    delta = 0.5 / (levels - 1)
    weights, scale = d.logits.softmax(-1), d.log_scale.exp()
    for k in range(levels):
        x = k / (levels - 1)
        above = torch.sigmoid((x + delta - d.loc) / scale) if k < levels - 1 else torch.ones(3, dtype=F64)
        below = torch.sigmoid((x - delta - d.loc) / scale) if k else torch.zeros(3, dtype=F64)
        expected = (weights * (above - below)).sum().log()
        assert float(d.log_prob(torch.tensor(x, dtype=F64))) == pytest.approx(float(expected), abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("log_scale", [-9.0, -3.0, 4.0])
def test_far_tails_and_narrow_scales_stay_finite(dtype, log_scale):
    loc = torch.tensor([[-3.0], [0.3], [5.0]], dtype=dtype, requires_grad=True)
    scale = torch.full((3, 1), log_scale, dtype=dtype, requires_grad=True)
    d = DiscretizedLogisticMixture(torch.zeros(3, 1, dtype=dtype), loc, scale)
    for value in (0.0, 100 / 255, 1.0):
        found = d.log_prob(torch.full((3,), value, dtype=dtype))
        assert found.isfinite().all()
        grads = torch.autograd.grad(found.sum(), [loc, scale])
        assert all(grad.isfinite().all() for grad in grads)


def test_gradients_are_right():
    logits, loc, scale = (torch.randn(4, 3, dtype=F64, requires_grad=True) for _ in range(3))
    x = torch.tensor([0.0, 0.25, 0.75, 1.0], dtype=F64)
    assert torch.autograd.gradcheck(
        lambda *parts: DiscretizedLogisticMixture(*parts, levels=5).log_prob(x), (logits, loc, scale)
    )


def test_samples_have_its_law():
    torch.manual_seed(0)
    d, levels, count = mixture(levels=5), 5, 20_000
    draws = d.sample((count,))
    x = torch.arange(levels, dtype=F64) / (levels - 1)
    p = d.log_prob(x).exp()
    counts = torch.bincount((draws * (levels - 1)).round().long(), minlength=levels)
    chi = ((counts - count * p).square() / (count * p)).sum()
    assert float(chi) < 4 + 5 * math.sqrt(8)  # 4 degrees of freedom, 5 standard deviations


def test_shapes():
    d = mixture(batch=(2, 1))
    assert d.batch_shape == (2, 1) and d.sample((7,)).shape == (7, 2, 1)
    assert d.expand((5, 2, 4)).log_prob(torch.zeros(4, dtype=F64)).shape == (5, 2, 4)
    likelihood = LogisticMixture(components=4)
    assert likelihood(torch.zeros(2, 3 * likelihood.outputs, 5, 6)).batch_shape == (2, 3, 5, 6)


def test_channels_do_not_mix():
    """The numbers of one channel decide that channel alone."""
    likelihood = LogisticMixture(components=2)
    out = torch.randn(1, 3 * 6, 2, 2, requires_grad=True)
    (grad,) = torch.autograd.grad(likelihood(out).log_prob(torch.full((1, 3, 2, 2), 0.2))[0, 1].sum(), out)
    touched = grad.abs().sum((0, 2, 3)) > 0
    assert touched.tolist() == [False] * 6 + [True] * 6 + [False] * 6


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match="at least 1 component"):
        LogisticMixture(components=0)
    with pytest.raises(InputError, match="expected 15 numbers for each channel"):
        LogisticMixture()(torch.zeros(2, 7, 4, 4))
