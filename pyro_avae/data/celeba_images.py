"""The images of CelebA: JPEG files in a folder or in a zip, found, checked and decoded."""

import hashlib
import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyro_avae.data.archive import entry_content, opened_zip
from pyro_avae.data.framing import FRAMING, frame_face
from pyro_avae.data.pillow import FORMATS, WIDE_MODES, reason, wary
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["IMAGE_FOLDER", "IMAGE_ZIP", "ImageSource", "decode", "find_image_source"]

IMAGE_FOLDER = "img_align_celeba"
IMAGE_ZIP = "img_align_celeba.zip"

Pixels = NDArray[np.uint8]
Read = Callable[[str], Pixels]

_CHUNK = 256
# An image takes 12 kB.
_LARGEST_FILE = 2**22
_ADVICE = "unpack or fetch the archive again, or take the image out of the lists"


class ImageSource(Protocol):
    """Where images lie."""

    @property
    def path(self) -> Path:
        """The folder or file."""

    def stamp(self, names: Sequence[str]) -> bytes:
        """32 bytes that differ where the images or the framing do; InputError where one is missing."""

    def reader(self) -> AbstractContextManager[Read]:
        """A function, safe to call from several threads, from an image's name to its pixels, uint8 (3, 64, 64)."""


def find_image_source(folder: Path) -> ImageSource | None:
    """The folder ``img_align_celeba`` in a folder if it is there, else ``img_align_celeba.zip``, else None."""
    if (folder / IMAGE_FOLDER).is_dir():
        return ImageFolder(folder / IMAGE_FOLDER)
    return ImageZip(folder / IMAGE_ZIP) if is_regular_file(folder / IMAGE_ZIP) else None


def decode(source: ImageSource, names: Sequence[str]) -> Iterator[Pixels]:
    """The images, uint8 (n, 3, 64, 64) at a time, in the order of their names.

    Raises:
        InputError: an image that cannot be read, or of other proportions than CelebA's; the message names it.
    """
    chunks = [names[start : start + _CHUNK] for start in range(0, len(names), _CHUNK)]
    # Pillow decodes outside of Python's lock.
    with wary(), source.reader() as read, ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        yield from pool.map(lambda chunk: np.stack([read(name) for name in chunk]), chunks)


@dataclass(frozen=True)
class ImageFolder:
    """JPEG files in a folder."""

    path: Path

    def stamp(self, names: Sequence[str]) -> bytes:
        return _stamp(names, map(self._info, names))

    def _info(self, name: str) -> os.stat_result:
        try:
            info = (self.path / name).stat()
        except (OSError, ValueError) as error:
            raise _missing(self.path, name) from error
        if not stat.S_ISREG(info.st_mode):  # opening a pipe would wait for ever
            raise _missing(self.path, name)
        return info

    @contextmanager
    def reader(self) -> Iterator[Read]:
        opened = _torchvision_opener(self.path) or (lambda name: Image.open(self.path / name))
        yield lambda name: _framed(shown(self.path / name), lambda: opened(name))


@dataclass(frozen=True)
class ImageZip:
    """JPEG files in a zip, at any depth."""

    path: Path

    def stamp(self, names: Sequence[str]) -> bytes:
        with self._entries() as (archive, _):
            counts = Counter(name.rpartition("/")[2] for name in archive.namelist())
        for name in names:
            if name not in counts:
                raise _missing(self.path, name)
            if counts[name] > 1:
                raise InputError(
                    f"{shown(self.path)}: expected one image of each name, got {shown(name)} in "
                    f"{counts[name]} folders; take the others out"
                )
        return _stamp(names, [self.path.stat()])

    @contextmanager
    def reader(self) -> Iterator[Read]:
        with self._entries() as (archive, entries):

            def opened(name: str) -> Image.Image:
                return Image.open(io.BytesIO(entry_content(archive, entries[name], most=_LARGEST_FILE)))

            yield lambda name: _framed(shown(self.path / entries[name].filename), lambda: opened(name))

    @contextmanager
    def _entries(self) -> Iterator[tuple[zipfile.ZipFile, Mapping[str, zipfile.ZipInfo]]]:
        """The open archive, and for each file name the entry of that name, at whatever depth it lies."""
        with opened_zip(self.path, of="images") as archive:
            yield archive, {entry.filename.rpartition("/")[2]: entry for entry in archive.infolist()}


def _torchvision_opener(folder: Path) -> Callable[[str], Image.Image] | None:
    """Opens images through torchvision's CelebA; None where its check of the lists' MD5 sums refuses the folder."""
    root = folder.parent.parent
    if folder.parent != root / "celeba":
        return None
    from torchvision.datasets import CelebA  # takes a second, and nothing else here needs it

    try:
        images = CelebA(root, split="all", target_type=[], download=False)
    except (RuntimeError, OSError):
        return None
    index_of = {name: index for index, name in enumerate(images.filename)}
    return lambda name: images[index_of[name]][0]


def _stamp(names: Sequence[str], files: Iterable[os.stat_result]) -> bytes:
    sizes_and_times = (f"{info.st_size} {info.st_mtime_ns}" for info in files)
    return hashlib.sha256("\n".join([f"framing {FRAMING}", *names, *sizes_and_times]).encode()).digest()


def _missing(place: Path, name: str) -> InputError:
    return InputError(
        f"{shown(place)}: expected every image of the attribute list, got no file {shown(name)}; {_ADVICE}, or name "
        "another folder as the data root"
    )


def _framed(where: str, opened: Callable[[], Image.Image]) -> Pixels:
    """The square of the opened image; whatever a broken file runs Pillow into is the user's to know, by file."""
    try:
        with opened() as image:
            # Only now are pixels read: what else Pillow knows the headers of is not run.
            if image.format not in FORMATS or image.mode in WIDE_MODES:
                raise ValueError(f"an image of Pillow's format {image.format} and mode {image.mode}")
            return frame_face(image)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:
        raise InputError(f"{where}: expected an image that Pillow can read, got {reason(error)}; {_ADVICE}") from error
