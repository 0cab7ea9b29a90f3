"""A split of images by the person in them, the same everywhere."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from pyro_avae.errors import InputError

__all__ = ["split_by_identity"]

_TEST_PART = 6


def split_by_identity(identities: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which images are tested: all of a sixth of the people, none of the others.

    A person is tested if SHA-256 of the number, written in decimal, is 0 modulo 6 as a big-endian integer, so that no
    other person has a say in it. Only where that leaves one side empty is it filled with one person, by least
    or largest hash.

    Args:
        identities: int64 (N,), the person in each image.

    Returns:
        bool (N,), neither all true nor all false.

    Raises:
        InputError: one person alone, or none.

    Example:
        >>> split_by_identity(np.array([1, 2, 4, 11, 2, 4])).tolist()
        [False, False, True, True, False, True]
    """
    people = np.unique(identities).tolist()
    if len(people) < 2:
        raise InputError(f"identities: expected at least two people, one of them to be tested, got {len(people)}")
    hashes = {person: _hash(person) for person in people}
    tested = {person for person in people if hashes[person] % _TEST_PART == 0}
    tested = tested or {min(people, key=hashes.__getitem__)}
    if len(tested) == len(people):
        tested.remove(max(people, key=hashes.__getitem__))
    return np.isin(identities, list(tested))


def _hash(person: int) -> int:
    return int.from_bytes(hashlib.sha256(str(person).encode()).digest(), "big")
