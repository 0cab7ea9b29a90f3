"""Images with noise in a share of their pixels."""

import pytest
import torch

from pyro_avae.data import MutatedSplit, Split, load_dataset, mutated_data
from pyro_avae.errors import InputError

SHAPE = (200, 1, 10, 10)


def split(rate=0.2):
    images = torch.full(SHAPE, 7, dtype=torch.uint8)
    return MutatedSplit(images, {"task": torch.arange(200)}, rate=rate, fixed=images)


def test_a_fifth_of_the_pixels_is_replaced_with_uniform_levels():
    x, labels = split().batch(torch.arange(200), torch.Generator().manual_seed(1))
    levels = (x * 255).round().long()
    n, p = levels.numel(), 0.2 * 255 / 256  # one replacement in 256 is by the same level
    # five standard errors of a share of n pixels
    assert float((levels != 7).double().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)
    replaced = levels[levels != 7].double()
    # uniform levels have standard deviation 74
    assert float(replaced.mean()) == pytest.approx(127.5, abs=5 * 74 / len(replaced) ** 0.5)
    assert (int(replaced.min()), int(replaced.max())) == (0, 255)
    assert torch.equal(labels["task"], torch.arange(200))


def test_batches_are_fresh_and_fixed_ones_are_not():
    data = mutated_data(load_dataset("color-digits"))
    one, two = (data.train.batch(torch.arange(5), None)[0] for _ in range(2))
    assert not torch.equal(one, two)
    fixed, again = (data.train.fixed_batch(torch.arange(5))[0] for _ in range(2))
    assert torch.equal(fixed, again)
    limited = data.limit(3).train.fixed_batch(torch.arange(3))[0]
    assert torch.equal(limited, fixed[:3])


@pytest.mark.parametrize(("rate", "share"), [(0.0, 0.0), (1.0, 255 / 256)])
def test_none_and_all(rate, share):
    x, _ = split(rate).batch(torch.arange(200), torch.Generator().manual_seed(0))
    changed = float(((x * 255).round() != 7).double().mean())
    assert changed == pytest.approx(share, abs=5 * (share * (1 - share) / x.numel()) ** 0.5)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(InputError, match=r"\Arate: expected a probability in \[0, 1\], got"):
        split(rate)


def test_the_images_of_a_named_set(data_root):
    data = load_dataset("mutated-fashion-mnist", root=data_root, limit=20)
    plain = load_dataset("fashion-mnist", root=data_root, limit=20)
    assert isinstance(data.train, MutatedSplit) and isinstance(plain.train, Split)
    assert data.name == "mutated-fashion-mnist"
    assert torch.equal(data.train.images, plain.train.images)
