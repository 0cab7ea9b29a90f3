"""Small roots like those of MNIST and CelebA, made with independent writers of their formats."""

import gzip
import io
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_avae.data import image_cache
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


class CelebAFiles:
    """Files as CelebA lays them out, of made-up faces."""

    LISTS = ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")
    TASKS = ("5_o_Clock_Shadow", "Bald", "Smiling", *(f"Task_{k}" for k in range(37)))
    NATIVE, HALF = (178, 218), (89, 109)

    @staticmethod
    def face(number: int, size: tuple[int, int] = HALF) -> Image.Image:
        """A smooth image that differs from number to number: red above all on the left, blue on the right."""
        width, height = size
        x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
        wave = 0.5 + 0.4 * np.sin(2 * np.pi * (2 * x + 3 * y) + number)
        colors = np.stack([np.where(x < 0.5, 0.9, 0.2), wave, np.where(x < 0.5, 0.1, 0.8)], axis=-1)
        return Image.fromarray((255 * colors).round().astype(np.uint8))

    @staticmethod
    def jpeg(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        image.save(stream, "jpeg", quality=95)
        return stream.getvalue()

    @staticmethod
    def names(count: int) -> list[str]:
        return [f"{number:06d}.jpg" for number in range(1, count + 1)]

    @classmethod
    def attributes(cls, count: int) -> np.ndarray:
        """0 or 1, (count, 40)."""
        return np.random.default_rng(5).integers(0, 2, (count, len(cls.TASKS)))

    @classmethod
    def write_lists(cls, folder, count, *, partition=None, identities=None, end="\r\n"):
        """The three lists as the official ones are laid out: columns aligned, a blank after the attributes' names."""
        names = cls.names(count)
        rows = [
            f"{name} " + " ".join(f"{2 * value - 1:2d}" for value in row)
            for name, row in zip(names, cls.attributes(count), strict=True)
        ]
        partition = [0] * count if partition is None else partition
        identities = [number % 12 for number in range(count)] if identities is None else identities
        texts = (
            [str(count), " ".join(cls.TASKS) + " ", *rows],
            [f"{name} {part}" for name, part in zip(names, partition, strict=True)],
            [f"{name} {person}" for name, person in zip(names, identities, strict=True)],
        )
        for file, lines in zip(cls.LISTS, texts, strict=True):
            (folder / file).write_bytes("".join(line + end for line in lines).encode())

    @classmethod
    def write_source(cls, folder, count, *, size=HALF, **lists):
        """A folder with the images 1 to ``count`` and their lists."""
        (folder / "img_align_celeba").mkdir(parents=True)
        for number, name in enumerate(cls.names(count), 1):
            (folder / "img_align_celeba" / name).write_bytes(cls.jpeg(cls.face(number, size)))
        cls.write_lists(folder, count, **lists)
        return folder

    @staticmethod
    def zipped(folder, *, prefix):
        """Moves the folder's images into a zip."""
        with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
            for path in sorted((folder / "img_align_celeba").iterdir()):
                archive.writestr(prefix + path.name, path.read_bytes())
                path.unlink()
            archive.writestr("__MACOSX/._000001.jpg", b"no image")
        (folder / "img_align_celeba").rmdir()


@pytest.fixture
def celeba() -> type[CelebAFiles]:
    return CelebAFiles


@pytest.fixture
def decoded(tmp_path, monkeypatch) -> Path:
    """The folder of decoded images, in a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image_cache._say_once.cache_clear()
    return tmp_path / "cache" / "pyro_avae" / "decoded"


@pytest.fixture
def celeba_root(tmp_path, decoded) -> Path:
    """A data root with 24 faces of 12 people at half size, all in the training partition."""
    CelebAFiles.write_source(tmp_path / "root" / "celeba_half", 24)
    return tmp_path / "root"
