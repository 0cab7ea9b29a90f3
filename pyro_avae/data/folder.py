"""A user's own images, read from a folder."""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyro_avae.data.pillow import FORMATS, WIDE_MODES, reason, wary
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown, user_path

__all__ = ["IMAGE_SUFFIXES", "load_folder"]

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""The endings, in either case, of the files that :func:`load_folder` takes for images."""

_GREY_MODES = {"1", "L"}
_TEST_PART = 10
_TASK = "class"
# A header of a few bytes may announce any number of them.
_MOST_PIXELS = 2**24

T = TypeVar("T")


@dataclass(frozen=True)
class _Item:
    """An image file, its path inside the folder, and the subfolder that is its class, if it lies in one."""

    path: Path
    key: str
    label: str | None


def load_folder(path: str | Path, *, limit: int | None = None) -> ImageData:
    """The images in a folder, as one data set held in memory.

    The folder holds images, or subfolders of images, whose names are the classes of the task ``class`` (two
    at least). If it holds ``train`` and ``test``, each of these is such a folder, and its other content is
    not read; else a tenth of the images, of every class, is the test split. Hidden files and files without a
    suffix of :data:`IMAGE_SUFFIXES` are ignored; links are followed.

    Which images are tested and the order in both splits follow from a hash of each file's name inside the
    folder: shuffled, but the same everywhere. Images are grey if all of them are, else RGB; transparency is
    dropped, and of an animation the first frame is taken.

    Args:
        path: the folder, ``~`` allowed.
        limit: the largest number of images to read in each split.

    Raises:
        InputError: the folder or images are missing, an image is unreadable, has more than 8 bits per channel
            or a size other than the first one's, or the layout is none of these.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for level in range(20):
        ...         Image.new("L", (6, 4), level).save(Path(folder) / f"{level}.png")
        ...     data = load_folder(folder)
        >>> data.shape, len(data.train), len(data.test)
        ((1, 4, 6), 18, 2)
    """
    root = user_path(path)
    train, test = _splits(root)
    classes = _classes(root, train, test)
    # From all images: the shape must not depend on the limit.
    mode = _common_mode([*train, *test])
    train, test = train[:limit], test[:limit]
    return ImageData(
        name=f"folder:{root}",
        train=_read_split(train, mode, classes),
        test=_read_split(test, mode, classes),
        class_names={_TASK: tuple(classes)} if classes else {},
    )


def _splits(root: Path) -> tuple[list[_Item], list[_Item]]:
    images, folders = _content(root)
    names = {folder.name for folder in folders}
    if names >= {"train", "test"}:
        return _items(root / "train"), _items(root / "test")
    if names == {"train"} and not images:
        return _hold_out(_items(root / "train"))
    if split := names & {"train", "test"}:
        raise InputError(
            f"{shown(root)}: expected both train and test, train alone, or neither, and classes inside them, got "
            f"{shown(split.pop())} with {len(images)} images and {len(names) - 1} other subfolders beside it"
        )
    return _hold_out(_items(root))


def _items(root: Path) -> list[_Item]:
    """The images in one folder or in its subfolders, ordered by the hash of their names."""
    images, folders = _content(root)
    if images and folders:
        raise InputError(
            f"{shown(root)}: expected images or subfolders of images, got both ({shown(images[0].name)} "
            f"beside the subfolder {shown(folders[0].name)}); move the ones or the others elsewhere"
        )
    items = [_Item(path, path.name, None) for path in images]
    for folder in folders:
        inside, _ = _content(folder)
        if not inside:
            raise InputError(_no_image(folder))
        items += [_Item(path, f"{folder.name}/{path.name}", folder.name) for path in inside]
    if not items:
        raise InputError(_no_image(root))
    return sorted(items, key=lambda item: hashlib.sha256(os.fsencode(item.key)).digest())


def _content(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files and the subfolders of a folder, by name."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError as error:
        raise InputError(f"{shown(folder)}: expected a folder of images, got {error.strerror}") from error
    others = set(entries).difference(folders)
    images = [entry for entry in entries if entry in others and entry.suffix.lower() in IMAGE_SUFFIXES]
    return images, folders


def _no_image(folder: Path) -> str:
    return f"{shown(folder)}: expected images ({' '.join(IMAGE_SUFFIXES)}) directly in this folder, got none"


def _hold_out(items: Sequence[_Item]) -> tuple[list[_Item], list[_Item]]:
    """Training and test images: the first tenth of every class, one at least, is tested; a lone image is not."""
    test: list[_Item] = []
    for label in {item.label for item in items}:
        same = [item for item in items if item.label == label]
        test += same[: max(len(same) // _TEST_PART, 1)] if len(same) > 1 else []
    if not test:
        raise InputError(
            f"{shown(items[0].path.parent)}: expected at least two images, so that one can be held out for testing, "
            f"got {items[0].path.name!r} alone"
        )
    tested = set(test)
    return [item for item in items if item not in tested], [item for item in items if item in tested]


def _classes(root: Path, train: Sequence[_Item], test: Sequence[_Item]) -> dict[str, int]:
    """Class name to label; empty where there are fewer than two, which is no classification task."""
    known = {item.label for item in train}
    for item in test:
        if item.label not in known:
            got = "no class" if item.label is None else f"class {item.label!r}"
            expected = "no classes" if known == {None} else ", ".join(sorted(repr(name) for name in known))
            raise InputError(
                f"{shown(item.path)}: expected a class that {shown(root / 'train')} has ({expected}), got {got}"
            )
    names = sorted(name for name in known if name is not None)
    return {name: label for label, name in enumerate(names)} if len(names) > 1 else {}


def _common_mode(items: Iterable[_Item]) -> str:
    """``L`` if every image is grey, else ``RGB``; the headers alone are read."""
    first: tuple[Path, tuple[int, int]] | None = None
    grey = True
    for item in sorted(items, key=lambda item: item.key):
        size, mode = _with_image(item.path, lambda image: (image.size, image.mode))
        if mode in WIDE_MODES:
            raise InputError(f"{shown(item.path)}: expected 8 bits per channel, got an image of Pillow's mode {mode}")
        if size[0] * size[1] > _MOST_PIXELS:
            raise InputError(f"{shown(item.path)}: expected at most {_MOST_PIXELS} pixels, got {_size(size)}")
        first = first or (item.path, size)
        if size != first[1]:
            raise InputError(
                f"{shown(item.path)}: expected all images in one size, got {_size(size)} after "
                f"{_size(first[1])} in {shown(first[0])}"
            )
        grey &= mode in _GREY_MODES
    return "L" if grey else "RGB"


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]} (width x height)"


def _read_split(items: Sequence[_Item], mode: str, classes: Mapping[str, int]) -> Split:
    images = torch.stack([_with_image(item.path, lambda image: _pixels(image, mode)) for item in items])
    if not classes:
        return Split(images, {})
    return Split(images, {_TASK: torch.tensor([classes[str(item.label)] for item in items])})


def _pixels(image: Image.Image, mode: str) -> Tensor:
    """uint8 (C, H, W)."""
    # Straight from a palette with transparency to RGB, Pillow warns; through RGBA, it does not.
    converted = (image.convert("RGBA") if image.mode == "P" else image).convert(mode)
    height_width_channels = np.atleast_3d(np.array(converted, dtype=np.uint8))
    return torch.from_numpy(height_width_channels).permute(2, 0, 1).contiguous()


def _with_image(path: Path, use: Callable[[Image.Image], T]) -> T:
    """``use`` of the opened image; whatever a broken file runs Pillow into is the user's to know, by file."""
    # Opening a pipe would wait for ever.
    if not is_regular_file(path):
        raise InputError(f"{shown(path)}: expected an image, got a broken link or no regular file")
    try:
        with wary(), Image.open(path, formats=FORMATS) as image:
            return use(image)
    except Exception as error:
        raise InputError(f"{shown(path)}: expected an image that Pillow can read, got {reason(error)}") from error
