"""Noise in blocks: standard, reproducible, and of no number of threads."""

import os
import subprocess
import sys

import pytest
import torch
from scipy import stats

from pyro_avae.compilation.noise_blocks import BLOCK, fill_in_blocks


def _drawn(shape, kind="normal", *, threads=1, seed=0, dtype=torch.float32):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return fill_in_blocks(torch.empty(shape, dtype=dtype), kind, torch.Generator().manual_seed(seed))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [7, 4 * BLOCK - 1, 4 * BLOCK, 5 * BLOCK + 3])
def test_it_is_the_same_on_any_number_of_threads(kind, dtype, size):
    one = _drawn((size,), kind, dtype=dtype)
    for threads in (2, 3):
        assert torch.equal(one, _drawn((size,), kind, threads=threads, dtype=dtype))
    assert not torch.equal(one, _drawn((size,), kind, seed=1, dtype=dtype))


def test_a_tensor_that_is_not_contiguous_gets_the_same_numbers():
    shape = (5, BLOCK)
    into = torch.empty(BLOCK, 5).t()
    assert torch.equal(fill_in_blocks(into, "normal", torch.Generator().manual_seed(0)), _drawn(shape))


def test_draws_of_one_generator_differ():
    generator = torch.Generator().manual_seed(0)
    one, other = (fill_in_blocks(torch.empty(4 * BLOCK), "normal", generator) for _ in range(2))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("kind", "law"), [("normal", stats.norm()), ("uniform", stats.uniform())])
def test_it_has_the_law_within_blocks_and_none_repeats_another(kind, law):
    count = 40
    values = _drawn((count * BLOCK,), kind, threads=2).double()
    assert stats.kstest(values[:BLOCK].numpy(), law.cdf).pvalue > 1e-4
    centred = (values - law.mean()).view(count, BLOCK) / law.std()
    correlations = centred @ centred.t() / BLOCK
    off = correlations[~torch.eye(count, dtype=torch.bool)]
    # Of independent blocks each is normal with deviation 1/sqrt(BLOCK); six of them for 1,560 pairs.
    assert float(off.abs().max()) < 6 / BLOCK**0.5
    # The mean of all is normal with deviation 1/sqrt(n).
    assert abs(float(centred.mean())) < 5 / (count * BLOCK) ** 0.5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_draws_too():
    """It has none of its parent's threads, and would wait for them without end."""
    code = """
import os, signal, torch
from pyro_avae.compilation.noise_blocks import BLOCK, fill_in_blocks
torch.set_num_threads(2)
draw = lambda: fill_in_blocks(torch.empty(5 * BLOCK), "normal", torch.Generator().manual_seed(0))
first = draw()
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if torch.equal(draw(), first) else 1)
assert os.waitpid(child, 0)[1] == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)
