"""Small MNIST-like roots, made with an independent writer of the idx format."""

import gzip
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from pyro_avae.errors import InputError

Refusal = Callable[[str], AbstractContextManager[None]]


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_split(raw: Path, prefix: str, images: np.ndarray, labels: np.ndarray, *, gz: bool) -> None:
    raw.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        content = idx_bytes(array.astype(np.uint8))
        path = raw / f"{prefix}-{kind}-ubyte"
        if gz:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
        else:
            path.write_bytes(content)


@pytest.fixture
def as_idx() -> Callable[[np.ndarray], bytes]:
    """An array of unsigned bytes in the idx format."""
    return idx_bytes


@pytest.fixture
def refused() -> Refusal:
    """A context in which an ``InputError`` of one line that matches the pattern is expected."""

    @contextmanager
    def context(pattern: str) -> Iterator[None]:
        with pytest.raises(InputError) as caught:
            yield
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert re.search(pattern, message), message

    return context


@pytest.fixture
def snapshot() -> Callable[[Path], list[tuple[str, int, int]]]:
    """Everything below a folder: name, size and time of change."""

    def take(root: Path) -> list[tuple[str, int, int]]:
        paths = sorted([root, *root.rglob("*")])
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]

    return take


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """A data root with 20 training and 10 test images of noise: training plain, test gzipped."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "root" / "MNIST" / "raw"
    for prefix, count, gz in (("train", 20, False), ("t10k", 10, True)):
        write_split(raw, prefix, rng.integers(0, 256, (count, 28, 28)), np.arange(count) % 10, gz=gz)
    return tmp_path / "root"
