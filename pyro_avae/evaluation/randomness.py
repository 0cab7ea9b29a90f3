"""Seeded random numbers that leave the caller's random state alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["isolated_rng"]


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Run a block under ``seed`` and put torch's random state, CPU and CUDA, back afterwards.

    Pyro's distributions draw from torch's global generators and take no other, so this is how a draw from them is
    seeded.

    Example:
        >>> before = torch.get_rng_state()
        >>> with isolated_rng(3):
        ...     a = torch.rand(2)
        >>> with isolated_rng(3):
        ...     b = torch.rand(2)
        >>> torch.equal(a, b), torch.equal(before, torch.get_rng_state())
        (True, True)
    """
    # Seeding touches every CUDA device. Where CUDA was never used there is no state to keep, and asking for one
    # would create a context on each device.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
