"""The three lists of CelebA: who is in an image, what is said of it, and which part of the data it belongs to."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pyro_avae.errors import InputError, shown_value
from pyro_avae.paths import is_regular_file, shown

__all__ = ["ATTRIBUTES", "LISTS", "CelebALists", "listed_images", "read_lists"]

ATTRIBUTES = "list_attr_celeba.txt"
_PARTITION = "list_eval_partition.txt"
_IDENTITY = "identity_CelebA.txt"
LISTS = (ATTRIBUTES, _PARTITION, _IDENTITY)
"""The names of the three lists."""

_ADVICE = "fetch the lists again, all three of one release"
# Of a whole number; Python refuses to read one of thousands.
_DIGITS = 18


@dataclass(frozen=True, eq=False)
class CelebALists:
    """What the lists say of N images, in the order of the attribute list.

    Args:
        names: the N file names.
        tasks: the K attributes' names.
        attributes: bool (N, K), whether an image has an attribute.
        identities: int64 (N,), the number of the person.
        partition: int64 (N,), 0 for training, 1 for validation, 2 for testing.
    """

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    attributes: NDArray[np.bool_]
    identities: NDArray[np.int64]
    partition: NDArray[np.int64]


def listed_images(folder: Path) -> int:
    """The number of images that the attribute list in a folder announces in its first line."""
    path = folder / ATTRIBUTES
    try:
        with path.open("rb") as stream:
            first = stream.readline(100)
    except OSError as error:
        raise InputError(f"{shown(path)}: expected a file that can be read, got: {error.strerror}") from error
    return _count(path, first)


def read_lists(folder: Path) -> CelebALists:
    """The three lists in a folder; lines end in LF or CRLF.

    The attribute list names the images: its first line is their number, its second the attributes, each further line a
    file name and -1 or 1 for each attribute. The identity and the partition list, a file name and a number a line, must
    have a line for each of these images, in any order, and may have more.

    Raises:
        InputError: a list is missing, unreadable or malformed, or has no line for an image.
    """
    names, tasks, attributes = _read_attributes(folder / ATTRIBUTES)
    identities = _read_numbers(folder / _IDENTITY, names)
    partition = _read_numbers(folder / _PARTITION, names, allowed={0: "train", 1: "valid", 2: "test"})
    return CelebALists(tuple(names), tasks, attributes, identities, partition)


def _read_attributes(path: Path) -> tuple[Sequence[str], tuple[str, ...], NDArray[np.bool_]]:
    lines = _lines(path)
    count, tasks = _count(path, lines[0].encode() if lines else b""), tuple(lines[1].split() if len(lines) > 1 else ())
    if not tasks or len(set(tasks)) != len(tasks):
        raise InputError(f"{shown(path)}: expected the names of the attributes, each once, in line 2; {_ADVICE}")
    if len(lines) - 2 != count:
        raise InputError(
            f"{shown(path)}: expected {count} images, as its first line says, got {len(lines) - 2} lines of them; "
            f"{_ADVICE}"
        )
    names, values = _rows(path, lines[2:], len(tasks), first=3)
    for number, name in enumerate(names, 3):
        # It is put behind the folder's name.
        if name in (".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
            raise InputError(
                f"{shown(path)}: expected the name of a file, in no other folder, in line {number}, got "
                f"{shown_value(name)}; {_ADVICE}"
            )
    if not bool((np.abs(values) == 1).all()):
        row, column = np.argwhere(np.abs(values) != 1)[0].tolist()
        raise InputError(
            f"{shown(path)}: expected -1 or 1, got {values[row, column]} for {tasks[column]} of {shown(names[row])} in "
            f"line {row + 3}; {_ADVICE}"
        )
    return names, tasks, values == 1


def _read_numbers(path: Path, names: Sequence[str], *, allowed: Mapping[int, str] | None = None) -> NDArray[np.int64]:
    """A list's number for each of the images named, one of those allowed and what they mean."""
    listed, values = _rows(path, _lines(path), 1, first=1)
    numbers = values[:, 0]
    if allowed is not None and not bool((known := np.isin(numbers, list(allowed))).all()):
        row = int(np.argmin(known))
        *others, last = (f"{number} ({meaning})" for number, meaning in allowed.items())
        raise InputError(
            f"{shown(path)}: expected {', '.join(others)} or {last}, got {numbers[row]} in line {row + 1}; {_ADVICE}"
        )
    if listed == names:
        return numbers
    row_of = {name: row for row, name in enumerate(listed)}
    if lacking := [name for name in names if name not in row_of]:
        raise InputError(
            f"{shown(path)}: expected a line for each image of {ATTRIBUTES}, got none for {shown(lacking[0])} and "
            f"{len(lacking) - 1} others; {_ADVICE}"
        )
    return numbers[[row_of[name] for name in names]]


def _rows(path: Path, lines: Sequence[str], columns: int, *, first: int) -> tuple[Sequence[str], NDArray[np.int64]]:
    """The file names and the integers, (N, columns), of lines that hold one of the former and then the latter."""
    parts = [(*line.split(None, 1), "", "")[:2] for line in lines]
    try:
        # numpy warns where there is nothing to read.
        rests = [rest for _, rest in parts]
        values = np.loadtxt(rests if any(rests) else ["0"], dtype=np.int64, comments=None, ndmin=2)
    except ValueError:
        values = np.empty((0, 0), dtype=np.int64)
    if values.shape != (len(lines), columns):
        raise InputError(f"{shown(path)}: {_odd_line(lines, columns, first)}; {_ADVICE}")
    names = [name for name, _ in parts]
    seen: set[str] = set()
    for number, name in enumerate(names, first):
        if name in seen:
            raise InputError(
                f"{shown(path)}: expected each image once, got {shown(name)} more than once, again in line {number}; "
                f"{_ADVICE}"
            )
        seen.add(name)
    return names, values


def _odd_line(lines: Sequence[str], columns: int, first: int) -> str:
    """What is wrong with the first line that is not a name and so many integers."""
    wanted = re.compile(rf"\s*\S+(\s+[-+]?\d{{1,{_DIGITS}}}){{{columns}}}\s*", re.ASCII)
    for number, line in enumerate(lines, first):
        if not wanted.fullmatch(line):
            return f"expected a file name and {columns} whole numbers in line {number}, got {shown_value(line)}"
    return "expected a line for at least one image, got none"


def _count(path: Path, line: bytes) -> int:
    if not line.strip().isdigit() or len(line.strip()) > _DIGITS or int(line) < 1:
        raise InputError(
            f"{shown(path)}: expected the number of images in line 1, got {shown_value(line.decode(errors='replace'))}"
            f"; {_ADVICE}"
        )
    return int(line)


def _lines(path: Path) -> list[str]:
    if not is_regular_file(path):
        raise InputError(f"{shown(path)}: expected this list, got no such file; {_ADVICE}")
    try:
        return path.read_text("utf-8").rstrip().splitlines()
    except OSError as error:
        raise InputError(f"{shown(path)}: expected a file that can be read, got: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown(path)}: expected a text file, got: {error}; {_ADVICE}") from error
