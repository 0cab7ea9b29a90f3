"""A shuffled order that is the same everywhere, for files that hold one class after the other."""

import hashlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["number_hash", "shuffled"]


def number_hash(number: int) -> bytes:
    """The SHA-256 of the number written in decimal."""
    return hashlib.sha256(str(number).encode()).digest()


def shuffled(count: int) -> NDArray[np.intp]:
    """The numbers below ``count``, in the order of their hashes.

    Example:
        >>> shuffled(5).tolist()
        [4, 3, 0, 1, 2]
    """
    return np.array(sorted(range(count), key=number_hash), dtype=np.intp)
