"""Large draws on a CPU, in blocks with a generator each, so that all threads draw."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import Tensor

from pyro_avae.compilation.random_ops import NORMAL

__all__ = ["BLOCK", "fill_in_blocks"]

#: Numbers of a block.
BLOCK = 2**16

#: Blocks that make up for the waking of other threads; a smaller draw is left to the generator itself.
_FEWEST = 4

_local = threading.local()


def fill_in_blocks(into: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    """Fill a tensor of the CPU with standard noise, the same for any number of threads.

    torch draws on one thread, whatever it computes on: for an image's worth of noise in every row that is a tenth of a
    step. Each block's generator is seeded by the next number of ``generator``.

    Args:
        into: what is filled.
        kind: ``"normal"`` or ``"uniform"``.
        generator: of the CPU.

    Example:
        >>> into = torch.empty(5 * BLOCK)
        >>> one = fill_in_blocks(into, "normal", torch.Generator().manual_seed(0)).clone()
        >>> torch.equal(one, fill_in_blocks(into, "normal", torch.Generator().manual_seed(0)))
        True
    """
    if not into.is_contiguous():
        return into.copy_(fill_in_blocks(torch.empty(into.shape, dtype=into.dtype), kind, generator))
    if into.numel() < _FEWEST * BLOCK:
        return _fill(into, kind, generator)
    blocks = into.view(-1).split(BLOCK)
    seeds = torch.randint(2**62, (len(blocks),), generator=generator).tolist()
    count = min(torch.get_num_threads(), len(blocks))
    others = [
        _pool(count - 1, os.getpid()).submit(_fill_all, blocks[n::count], seeds[n::count], kind)
        for n in range(1, count)
    ]
    _fill_all(blocks[::count], seeds[::count], kind)
    for other in others:
        other.result()
    return into


def _fill_all(blocks: tuple[Tensor, ...], seeds: list[int], kind: str) -> None:
    if not hasattr(_local, "generator"):
        _local.generator = torch.Generator()
    for block, seed in zip(blocks, seeds, strict=True):
        _fill(block, kind, _local.generator.manual_seed(seed))


def _fill(into: Tensor, kind: str, generator: torch.Generator) -> Tensor:
    return into.normal_(generator=generator) if kind == NORMAL else into.uniform_(generator=generator)


@cache
def _pool(workers: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process: one that was forked has none of its parent's."""
    return ThreadPoolExecutor(workers, thread_name_prefix="pyro_avae-noise")
