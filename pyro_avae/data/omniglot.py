"""Omniglot: handwritten characters of fifty alphabets, as binary images of 28x28 pixels."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pyro_avae.data.archive import entry_content, opened_zip
from pyro_avae.data.image_cache import cached_images
from pyro_avae.data.matlab import read_matrices
from pyro_avae.data.pillow import reason, wary
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["load_omniglot", "reduced"]

_NAME, _FOLDER, _MATRIX = "omniglot", "omniglot-py", "chardata.mat"
_PARTS = ("background", "evaluation")
_SUFFIXES = (".zip", ".rebuilt.zip")
_SIZE, _DRAWN = 28, 105

# A quarter of a pixel of the drawing is the unit: 15 of them for each of the 28 pixels, 225 in the square of one.
_UNIT = 4
_SPAN = _UNIT * _DRAWN // _SIZE
_INK = 75

_ENTRY = re.compile(r"(?:.*/)?character\d+/(\d+_\d+\.png)")
# A drawing takes 300 bytes, and there are 19,280 in the larger archive: what is far beyond is no Omniglot.
_LARGEST_FILE, _MOST_FILES = 2**16, 10**5
_CHUNK = 1000


def load_omniglot(root: Path | None) -> ImageData:
    """Characters, 1x28x28, 255 where there is ink and 0 elsewhere, without labels.

    **Files**, in ``root/omniglot-py``. Where it is there, ``chardata.mat``: the 28x28 images and the split of Burda et
    al. (24,345 and 8,070, of all alphabets), that published densities are of. Their grey values are the probabilities
    of ink in one draw, made here from a fixed seed and the same everywhere; published training draws anew in every
    epoch. Else ``images_background.zip`` (19,280 drawings of 105x105, for training) and ``images_evaluation.zip``
    (13,180, for tests), as torchvision fetches them, or the same trees with ``.rebuilt.zip`` behind the name. **These
    are other images and another split**: it is tested on alphabets that none was trained on, and densities are not
    those published.

    **Reduction** of a drawing: see :func:`reduced`. The order is that of a hash of the drawings' names, so that the
    first images of a split are of all its alphabets. Reduced images are kept in the per-user cache, 784 bytes each:
    see :func:`~pyro_avae.data.image_cache.cached_images`.

    There is no task: the two splits of the drawings have no alphabet, and so no character, in common.

    Args:
        root: the data root.

    Raises:
        InputError: no root, or files that are missing, damaged or hold something else.

    Source: B. Lake, R. Salakhutdinov, J. Tenenbaum, *Human-level concept learning through probabilistic program
        induction*, Science 2015; the matrix: Y. Burda, R. Grosse, R. Salakhutdinov, *Importance Weighted Autoencoders*,
        ICLR 2016.
    """
    folder = None if root is None else root / _FOLDER
    if folder is not None and is_regular_file(folder / _MATRIX):
        train, test = _read_matrix(folder / _MATRIX)
    else:
        train, test = (_read_archive(_archive(folder, part)) for part in _PARTS)
    return ImageData(_NAME, Split(train, {}), Split(test, {}), {})


def reduced(ink: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Drawings ``(N, 105, 105)``, true where there is ink, as ``(N, 1, 28, 28)`` of 0 and 255.

    A pixel is 255 where ink covers at least a third of its square of 3.75x3.75 pixels of the drawing; in whole numbers,
    so that the result is the same everywhere. A third keeps strokes, two or three pixels wide, in one piece.

    Example:
        >>> drawing = np.zeros((1, 105, 105), dtype=bool)
        >>> drawing[:, :, :5] = True  # five of 3.75 + 3.75 columns: all of the first pixel, a third of the second
        >>> reduced(drawing)[0, 0, 0, :3].tolist()
        [255, 255, 0]
    """
    covered = ink.repeat(_UNIT, axis=1).reshape(len(ink), _SIZE, _SPAN, _DRAWN).sum(axis=2, dtype=np.int64)
    covered = covered.repeat(_UNIT, axis=2).reshape(len(ink), _SIZE, _SIZE, _SPAN).sum(axis=3)
    return np.where(covered >= _INK, 255, 0).astype(np.uint8)[:, None]


def _read_matrix(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and test images of ``chardata.mat``."""
    try:
        content: Mapping[str, Any] = read_matrices(path, ("data", "testdata"))
        train, test = (_drawn(content[name], seed) for seed, name in enumerate(("data", "testdata")))
    except (KeyError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{shown(path)}: expected 28x28 grey images, got {error}; fetch it again") from error
    return train, test


def _drawn(columns: NDArray[Any], seed: int) -> torch.Tensor:
    """An image a column, columns of pixels first, their values the probabilities of ink."""
    grey = columns.T.astype(np.float64)
    if grey.ndim != 2 or grey.shape[1] != _SIZE**2 or not ((grey >= 0) & (grey <= 1)).all():
        raise ValueError(f"images of shape {columns.shape}, or values beyond 0 and 1")
    # This generator's numbers are promised never to change.
    ink = np.random.RandomState(seed).random_sample(grey.shape) < grey
    upright = ink.reshape(-1, 1, _SIZE, _SIZE).transpose(0, 1, 3, 2)
    return torch.from_numpy(np.ascontiguousarray(upright)).to(torch.uint8) * 255


def _archive(folder: Path | None, part: str) -> Path:
    names = [f"images_{part}{suffix}" for suffix in _SUFFIXES]
    found = next((folder / name for name in names if folder and is_regular_file(folder / name)), None)
    if folder is None or found is None:
        where = "a data root" if folder is None else shown(folder)
        expected = f"{_MATRIX}, {' or '.join(names)}"
        raise InputError(f"{_NAME}: expected {expected} in {where}, got none; they are not downloaded")
    return found


def _read_archive(path: Path) -> torch.Tensor:
    """The drawings of a zip, which is read in place: nothing of it is unpacked."""
    with opened_zip(path, of="drawings") as archive:
        entries = _entries(archive, path)
        info = path.stat()
        stamp = hashlib.sha256(f"reduction 1 {info.st_size} {info.st_mtime_ns} {len(entries)}".encode()).digest()
        return cached_images(
            f"{_NAME}-{hashlib.sha256(str(path).encode(errors='surrogateescape')).hexdigest()[:16]}",
            stamp=stamp,
            shape=(len(entries), 1, _SIZE, _SIZE),
            decode=lambda: _decode(archive, entries, path),
        )


def _entries(archive: zipfile.ZipFile, path: Path) -> Sequence[zipfile.ZipInfo]:
    """Those of drawings, in the order of the hash of their names."""
    named = [(found[1], entry) for entry in archive.infolist() if (found := _ENTRY.fullmatch(entry.filename))]
    if not 1 <= len(named) <= _MOST_FILES:
        raise InputError(
            f"{shown(path)}: expected alphabet/character01/0001_01.png and the like, 1 to {_MOST_FILES} of them, got"
            f" {len(named)}"
        )
    if len({entry.filename for _, entry in named}) < len(named):
        raise InputError(f"{shown(path)}: expected each drawing once, got two of one name; fetch the archive again")
    return [entry for _, entry in sorted(named, key=lambda pair: hashlib.sha256(pair[0].encode()).digest())]


def _decode(archive: zipfile.ZipFile, entries: Sequence[zipfile.ZipInfo], path: Path) -> Iterator[NDArray[np.uint8]]:
    with wary():
        for start in range(0, len(entries), _CHUNK):
            yield reduced(np.stack([_ink(archive, entry, path) for entry in entries[start : start + _CHUNK]]))


def _ink(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> NDArray[np.bool_]:
    """A drawing; whatever a broken file runs Pillow into is the user's to know, by file."""
    try:
        content = entry_content(archive, entry, most=_LARGEST_FILE)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != (_DRAWN, _DRAWN):
                raise ValueError(f"{image.size[0]}x{image.size[1]} pixels")
            return np.asarray(image.convert("L")) < 128
    except Exception as error:
        raise InputError(
            f"{shown(path)}: expected a drawing of {_DRAWN}x{_DRAWN} in {shown(entry.filename)}, got {reason(error)};"
            " fetch the archive again"
        ) from error
