"""Independent streams of random numbers from one seed, and a caller's random state left as it was."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["isolated", "stream_seed"]


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """The seed of one of a run's streams (parameters, data order, ...), independent of all the others.

    One seed for all would give the initial weights and the first noise the same random numbers.

    Example:
        >>> stream_seed(0, "noise") != stream_seed(0, "parameters") != stream_seed(1, "parameters")
        True
    """
    entropy = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), index])
    return int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1))


@contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run a block with torch's generators, of the CPU and of CUDA, at ``seed``; put their states back after it.

    Pyro's distributions draw from torch's global generators and take no other.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated(3):
        ...     a = torch.rand(2)
        >>> with isolated(3):
        ...     b = torch.rand(2)
        >>> torch.equal(a, b), torch.equal(before, torch.get_rng_state())
        (True, True)
    """
    # Where CUDA was never used there is no state to keep, and torch.manual_seed would seed it for later all the same.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(seed)
        if devices:
            torch.cuda.manual_seed_all(seed)
        yield
