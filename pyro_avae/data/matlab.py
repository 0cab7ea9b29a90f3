"""Matrices in MATLAB 5 files that nobody vouches for.

scipy's ``loadmat`` reads far more, and ends the process where a damaged file leads it out of its memory.
"""

import math
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_matrices"]

#: More than any file that is read here unpacks to.
_MOST_BYTES = 1 << 28
_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _TEXT = 1, 4
_ELEMENTS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMBERS = range(6, 16)

_Order = Literal["little", "big"]


def read_matrices(path: Path, names: Collection[str]) -> Mapping[str, NDArray[Any] | list[str]]:
    """The variables of these names that a file has: matrices of real numbers, as they are stored; cells of texts.

    Raises:
        ValueError: no MATLAB 5 file, a damaged or an enormous one, or a variable of another kind.
        OSError: it cannot be read.

    Source: MathWorks, *MAT-File Format*, "Level 5 MAT-Files".
    """
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"a file of more than {_MOST_BYTES} bytes")
    content = path.read_bytes()
    orders: Mapping[bytes, _Order] = {b"IM": "little", b"MI": "big"}
    order = orders.get(content[_HEADER - 2 : _HEADER])
    if order is None:
        raise ValueError("a file that is not of MATLAB 5")
    found: dict[str, NDArray[Any] | list[str]] = {}
    left = _MOST_BYTES
    for kind, data in _elements(memoryview(content)[_HEADER:], order):
        if kind == _COMPRESSED:
            unpacked = zlib.decompressobj()
            try:
                inner = unpacked.decompress(data, left + 1)
            except zlib.error as error:
                raise ValueError(f"a damaged variable: {error}") from error
            left -= len(inner)
            if left < 0 or not unpacked.eof:
                raise ValueError(f"a variable that is cut short, or more than {_MOST_BYTES} bytes of them")
            kind, data = next(_elements(memoryview(inner), order), (0, data))
        if kind == _MATRIX and (matrix := _matrix(data, order)).name in names:
            found[matrix.name] = _texts(matrix, order) if matrix.kind == _CELL else _numbers(matrix, order)
    return found


class _Matrix(NamedTuple):
    """A variable, its parts not yet looked into."""

    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    name: str
    parts: Iterator[tuple[int, memoryview]]


def _elements(data: memoryview, order: _Order) -> Iterator[tuple[int, memoryview]]:
    """The type and the bytes of each element in a row of them."""
    place = 0
    while len(data) - place >= 8:
        kind, size = (int.from_bytes(data[at : at + 4], order) for at in (place, place + 4))
        start = place + 8
        if kind >> 16:  # four bytes at most, within the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
        if size > (4 if start == place + 4 else len(data) - start):
            raise ValueError("an element that is longer than what holds it")
        yield kind, data[start : start + size]
        end = start + size
        place = end if kind == _COMPRESSED else -(-end // 8) * 8


def _matrix(data: memoryview, order: _Order) -> _Matrix:
    parts = _elements(data, order)
    _, flags = _next(parts)
    _, sizes = _next(parts)
    _, name = _next(parts)
    if len(flags) < 4 or len(sizes) % 4:
        raise ValueError("a variable without a kind or sizes")
    number = int.from_bytes(flags[:4], order)
    shape = tuple(int.from_bytes(sizes[at : at + 4], order) for at in range(0, len(sizes), 4))
    return _Matrix(number & 0xFF, bool(number & 0x800), shape, bytes(name).decode("ascii", "replace"), parts)


def _numbers(matrix: _Matrix, order: _Order) -> NDArray[Any]:
    if matrix.kind not in _NUMBERS or matrix.is_complex:
        raise ValueError(f"no real numbers in {matrix.name!r}")
    kind, data = _next(matrix.parts)
    stored = np.dtype(_ELEMENTS.get(kind, "V1")).newbyteorder(order)
    if kind not in _ELEMENTS or len(data) != math.prod(matrix.shape) * stored.itemsize:
        raise ValueError(f"{len(data)} bytes for the shape {matrix.shape} of {matrix.name!r}")
    values = np.frombuffer(data, dtype=stored).reshape(matrix.shape, order="F")
    return values.astype(stored.newbyteorder("="))


def _texts(matrix: _Matrix, order: _Order) -> list[str]:
    texts = []
    for kind, data in matrix.parts:
        if kind != _MATRIX or (inner := _matrix(data, order)).kind != _TEXT:
            raise ValueError(f"other than texts in {matrix.name!r}")
        stored, characters = _next(inner.parts)
        wide = "utf-16-le" if order == "little" else "utf-16-be"
        texts.append(bytes(characters).decode(wide if stored in (4, 17) else "utf-8", "replace"))
    if len(texts) != math.prod(matrix.shape):
        raise ValueError(f"{len(texts)} texts for the shape {matrix.shape} of {matrix.name!r}")
    return texts


def _next(parts: Iterator[tuple[int, memoryview]]) -> tuple[int, memoryview]:
    found = next(parts, None)
    if found is None:
        raise ValueError("a variable that is cut short")
    return found
