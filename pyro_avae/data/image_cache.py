"""Decoded images, kept between runs in files of the per-user cache that tensors map into memory."""

import functools
import io
import logging
import math
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_avae.data.download import cache_root
from pyro_avae.errors import InputError
from pyro_avae.paths import shown

__all__ = ["Decode", "cached_images", "find_images"]

log = logging.getLogger(__name__)

Decode = Callable[[], Iterable[NDArray[np.uint8]]]
"""Makes the images anew at each call, uint8 (n, C, H, W) at a time."""

_CRC_BYTES = 4


def cached_images(name: str, *, stamp: bytes, shape: tuple[int, ...], decode: Decode) -> Tensor:
    """The images that ``decode`` makes, made once and then mapped into memory.

    They lie in ``NAME.npy`` in the folder ``decoded`` of :func:`~pyro_avae.data.download.cache_root`, which holds an
    array in numpy's format, then the stamp, then a CRC-32 of the array and the stamp. The file is written beside its
    place and moved there when it is whole. One that is damaged, cut short or of another stamp or shape is made again.
    Where it cannot be written, the images are decoded into memory, and a warning is logged, once per process.

    The tensor's pages are those of the file, shared between processes and read when they are first used. Writing into
    the tensor changes a private copy of a page, never the file.

    Args:
        name: the file's name, for what the images are of.
        stamp: what the images depend on, in 32 bytes.
        shape: (N, C, H, W), what all that ``decode`` yields adds up to.
        decode: makes the images.

    Returns:
        uint8 (N, C, H, W) on the CPU.
    """
    found = find_images(name, stamp=stamp, shape=shape)
    if found is not None:
        return found
    try:
        _write(_file(name), stamp, shape, decode)
        found = find_images(name, stamp=stamp, shape=shape)
    except OSError as error:
        # The name of a temporary file in the error would differ each time.
        _say_once(error.strerror or str(error))
    return torch.from_numpy(np.concatenate(list(decode()))) if found is None else found


def find_images(name: str, *, stamp: bytes, shape: tuple[int, ...]) -> Tensor | None:
    """The images that :func:`cached_images` has kept under a name; None if there are none of this stamp and shape."""
    try:
        path = _file(name)
        header, size = _header(shape), math.prod(shape)
        if path.stat().st_size != len(header) + size + len(stamp) + _CRC_BYTES:
            return None
        # Copy on write: torch warns of arrays that it must not write into.
        content = np.memmap(path, dtype=np.uint8, mode="c")
    except (OSError, ValueError):  # ValueError: numpy maps no empty file, which another process may have left
        return None
    body, crc = content[len(header) : -_CRC_BYTES], content[-_CRC_BYTES:]
    kept = (content[: len(header)].tobytes(), body[size:].tobytes(), crc.tobytes())
    if kept != (header, stamp, _crc_bytes(zlib.crc32(body.data))):
        return None
    return torch.from_numpy(np.asarray(body[:size])).reshape(shape)


def _file(name: str) -> Path:
    try:
        return cache_root() / "decoded" / f"{name}.npy"
    except InputError as error:
        raise OSError(str(error)) from error


def _write(path: Path, stamp: bytes, shape: tuple[int, ...], decode: Decode) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, scratch = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _write_content(stream, stamp, shape, decode)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink()
        raise


def _write_content(stream: BinaryIO, stamp: bytes, shape: tuple[int, ...], decode: Decode) -> None:
    stream.write(_header(shape))
    crc = 0
    for images in decode():
        piece = images.tobytes()
        stream.write(piece)
        crc = zlib.crc32(piece, crc)
    stream.write(stamp)
    stream.write(_crc_bytes(zlib.crc32(stamp, crc)))


def _header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def _crc_bytes(crc: int) -> bytes:
    return crc.to_bytes(_CRC_BYTES, "little")


@functools.cache
def _say_once(reason: str) -> None:
    try:
        place = f" in {shown(_file('').parent)}"
    except OSError:
        place = ""
    log.warning(
        "decoded images cannot be kept%s (%s): they are decoded anew in each process; set XDG_CACHE_HOME to a folder "
        "that can be written to",
        place,
        reason,
    )
