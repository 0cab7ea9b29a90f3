"""The idx reader: exact on every intact file, one clear error on every damaged one."""

import gzip
import os
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pyro_avae.data import read_idx
from pyro_avae.errors import InputError


def encoded(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


ARRAY = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
CONTENT = encoded(ARRAY)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)), st.sampled_from([bytes, gzip.compress])
)
def test_reads_back_what_was_written(array, pack):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "array"
        path.with_name("array.gz" if pack is gzip.compress else "array").write_bytes(pack(encoded(array)))
        before = list(Path(folder).iterdir())
        result = read_idx(path, ndim=array.ndim)
        assert list(Path(folder).iterdir()) == before
    assert tuple(result.shape) == array.shape
    assert (result.numpy() == array).all()


@pytest.mark.parametrize(("name", "content"), [("x", CONTENT), ("x.gz", gzip.compress(CONTENT))])
def test_every_truncation_is_an_input_error(tmp_path, refused, name, content):
    assert read_of(tmp_path / name, content).tolist() == ARRAY.tolist()
    for end in range(len(content)):
        with refused(rf"{name}: expected .*, got"):
            read_of(tmp_path / name, content[:end])


def test_every_flipped_byte_of_a_gzip_file_is_harmless_or_an_input_error(tmp_path, refused):
    content = gzip.compress(CONTENT)
    refusals = 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        try:
            assert read_of(tmp_path / "x.gz", bytes(damaged)).tolist() == ARRAY.tolist()
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            refusals += 1
    # Only the time stamp, the level and the operating system (6 bytes) say nothing about the content.
    assert refusals >= len(content) - 6


def read_of(file: Path, content: bytes):
    file.write_bytes(content)
    return read_idx(file.with_name("x"), ndim=3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (CONTENT + b"\0", r"expected 12 bytes of data \(3x2x2, as its header says\), got more"),
        (b"\0\0\x0d\x03" + CONTENT[4:], "expected the idx magic number 00000803 .* got 00000d03"),
        (encoded(ARRAY.reshape(3, 4)), r"\(unsigned bytes, 3 dimensions\), got 00000802"),
        (b"<html><head>", "got 3c68746d"),
        (b"", "got an empty file"),
        (encoded(np.empty((0, 2, 2), np.uint8)), "expected sizes of at least 1, got 0x2x2"),
        (b"\0\0\x08\x03" + b"\0\0\x04\0" * 3 + b"\0", "expected 1073741824 bytes .*, got only 1"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"\0", "expected at most 1073741824 bytes of data, got sizes 4294967295x"),
    ],
)
@pytest.mark.parametrize(("name", "pack"), [("x", bytes), ("x.gz", gzip.compress)])
def test_wrong_content_is_refused(tmp_path, refused, content, message, name, pack):
    with refused(f"{name}: .*{message}"):
        read_of(tmp_path / name, pack(content))


def test_the_plain_file_comes_before_the_gzipped_one(tmp_path):
    (tmp_path / "x").write_bytes(CONTENT)
    (tmp_path / "x.gz").write_bytes(gzip.compress(encoded(ARRAY + 1)))
    assert read_idx(tmp_path / "x", ndim=3).tolist() == ARRAY.tolist()


def test_no_file_or_no_regular_file_is_refused(tmp_path, refused):
    with refused(r"x: expected this file, plain or with \.gz, got neither"):
        read_idx(tmp_path / "x", ndim=3)
    (tmp_path / "x").mkdir()
    os.mkfifo(tmp_path / "x.gz")
    with refused("got neither"):
        read_idx(tmp_path / "x", ndim=3)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path, refused):
    (tmp_path / "x").write_bytes(CONTENT)
    (tmp_path / "x").chmod(0)
    with refused("x: expected a file that can be read, got: Permission denied"):
        read_idx(tmp_path / "x", ndim=3)
