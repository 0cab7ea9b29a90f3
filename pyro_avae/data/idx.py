"""The idx file format of MNIST, plain or gzipped, read without unpacking anything to disk."""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["find_idx", "read_idx"]

_UNSIGNED_BYTE = 0x08
_CHUNK = 1 << 24
# Five times the largest file of this format that is known; a gzip file of a few kilobytes could fill any memory.
_MOST_BYTES = 1 << 30
_ADVICE = "fetch the file again"


def find_idx(path: Path) -> Path | None:
    """The file that holds ``path``: itself, else the same name with ``.gz``, else None."""
    gzipped = path.with_name(path.name + ".gz")
    return next((file for file in (path, gzipped) if is_regular_file(file)), None)


def read_idx(path: Path, *, ndim: int) -> Tensor:
    """Reads an idx file of unsigned bytes.

    The format: two zero bytes, a type byte (0x08, unsigned bytes), the number of dimensions d, d big-endian
    sizes of four bytes each, then the bytes of the array, last dimension fastest.

    Args:
        path: the file's name without ``.gz``; the plain file is taken if it is there, else ``path.gz``.
        ndim: the number of dimensions that the file must have: 3 for images, 1 for labels.

    Returns:
        A uint8 tensor on the CPU, of the sizes in the header.

    Raises:
        InputError: neither file exists, or it is unreadable, damaged, cut short, too long, of another type or
            of another number of dimensions, or has a size of zero.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 7, 9]))
        ...     read_idx(path, ndim=1).tolist()
        [7, 9]

    Source: Y. LeCun, C. Cortes, C. J. C. Burges, *The MNIST database of handwritten digits*, "File formats".
    """
    file = find_idx(path)
    if file is None:
        raise InputError(f"{shown(path)}: expected this file, plain or with .gz, got neither")
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            return _decode(stream, file, ndim)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{shown(file)}: expected an intact gzip file, got: {error}; {_ADVICE}") from error
    except OSError as error:
        raise InputError(f"{shown(file)}: expected a file that can be read, got: {error.strerror}") from error


def _decode(stream: io.BufferedIOBase, file: Path, ndim: int) -> Tensor:
    sizes = _read_header(stream, file, ndim)
    expected = math.prod(sizes)
    # One byte more than expected: it shows a file that is too long, and makes gzip verify its checksum.
    content = _read_at_most(stream, expected + 1)
    if len(content) != expected:
        shape = "x".join(map(str, sizes))
        found = f"only {len(content)}" if len(content) < expected else "more"
        raise InputError(
            f"{shown(file)}: expected {expected} bytes of data ({shape}, as its header says), got {found}; {_ADVICE}"
        )
    return torch.frombuffer(content, dtype=torch.uint8).reshape(sizes)


def _read_header(stream: io.BufferedIOBase, file: Path, ndim: int) -> tuple[int, ...]:
    length = 4 + 4 * ndim
    header = bytes(_read_at_most(stream, length))
    magic = bytes([0, 0, _UNSIGNED_BYTE, ndim])
    if header[:4] != magic:
        raise InputError(
            f"{shown(file)}: expected the idx magic number {magic.hex()} (unsigned bytes, {ndim} dimensions), got "
            f"{header[:4].hex() or 'an empty file'}; {_ADVICE}"
        )
    if len(header) < length:
        raise InputError(f"{shown(file)}: expected a header of {length} bytes, got only {len(header)}; {_ADVICE}")
    sizes: tuple[int, ...] = struct.unpack(f">{ndim}I", header[4:])
    shape = "x".join(map(str, sizes))
    if 0 in sizes:
        raise InputError(f"{shown(file)}: expected sizes of at least 1, got {shape}")
    if math.prod(sizes) > _MOST_BYTES:
        raise InputError(f"{shown(file)}: expected at most {_MOST_BYTES} bytes of data, got sizes {shape}; {_ADVICE}")
    return sizes


def _read_at_most(stream: io.BufferedIOBase, count: int) -> bytearray:
    """Up to ``count`` bytes, in pieces: a damaged header may ask for more than the memory holds."""
    content = bytearray()
    while piece := stream.read(min(_CHUNK, count - len(content))):
        content += piece
    return content
