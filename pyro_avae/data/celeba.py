"""CelebA: aligned faces with forty attributes, in the official files or in a part of them at another size."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_avae.data.celeba_images import IMAGE_FOLDER, IMAGE_ZIP, ImageSource, decode, find_image_source
from pyro_avae.data.celeba_lists import LISTS, CelebALists, listed_images, read_lists
from pyro_avae.data.download import cache_root
from pyro_avae.data.framing import SIZE
from pyro_avae.data.identity_split import split_by_identity
from pyro_avae.data.image_cache import cached_images, find_images
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["load_celeba"]

_NAME = "celeba"
_FOLDERS = ("celeba", "celeba_half")
_CLASSES = ("no", "yes")
_TRAIN, _TEST = 0, 2


def load_celeba(root: Path | None, *, limit: int | None = None) -> ImageData:
    """Faces, 3x64x64 in colour, with a task of two classes (no, yes) for each attribute, such as ``Smiling``.

    **Files.** A source is a folder that holds ``list_attr_celeba.txt``, ``list_eval_partition.txt``,
    ``identity_CelebA.txt`` and the images that the first of these names, as JPEG files in ``img_align_celeba/`` or else
    in ``img_align_celeba.zip``. They may have any size in the proportions of the native 178x218, from 77 wide. Of the
    sources ``root/celeba``, ``root/celeba_half`` and ``root`` itself the one whose attribute list announces the most
    images is read, of equal ones the first. Where torchvision's ``CelebA`` accepts ``root/celeba`` (it wants all five
    official lists, bit for bit), images are opened by it. Nothing is downloaded and nothing written to a source.

    **Framing.** The central 148x148 native pixels, resized to 64x64: see
    :func:`~pyro_avae.data.framing.frame_face`.

    **Split.** The official partition where it has both training (0) and test (2) images among those listed; its
    validation images (1) are then left out. Else all images, split by person: see
    :func:`~pyro_avae.data.identity_split.split_by_identity`. Both splits are in the order of the attribute list.

    **Cache.** Images are decoded once and then mapped into memory from a file in the per-user cache, 12 kB an image:
    see :func:`~pyro_avae.data.image_cache.cached_images`. It is made again if a file's size or time changes.

    Args:
        root: a data root, or a source. None: the per-user cache.
        limit: the largest number of images in each split. No others are decoded, unless they were before.

    Raises:
        InputError: no source, a file that is missing or damaged, or one person alone.

    Source: Z. Liu et al., *Deep Learning Face Attributes in the Wild*, ICCV 2015.
    """
    folder, source = _find(cache_root() if root is None else root)
    lists = read_lists(folder)
    train, test = _split(folder, lists)
    train_images, test_images = _images(source, _names(lists, train), _names(lists, test), limit)
    return ImageData(
        name=_NAME,
        train=Split(train_images, _labels(lists, train[:limit])),
        test=Split(test_images, _labels(lists, test[:limit])),
        class_names=dict.fromkeys(lists.tasks, _CLASSES),
    )


def _find(root: Path) -> tuple[Path, ImageSource]:
    """The largest source in a data root."""
    folders = [*(root / name for name in _FOLDERS), root]
    found = [(folder, source) for folder in folders if (source := find_image_source(folder)) and not _lacks(folder)]
    if not found:
        raise InputError(
            f"celeba: expected {', '.join(LISTS)} and {IMAGE_FOLDER}/ or {IMAGE_ZIP} in one folder, got "
            f"{'; '.join(_state(folder) for folder in folders)}; name a data root that holds them, or use "
            "color-digits, which needs no download"
        )
    return max(found, key=lambda pair: listed_images(pair[0]))


def _lacks(folder: Path) -> Sequence[str]:
    return [name for name in LISTS if not is_regular_file(folder / name)]


def _state(folder: Path) -> str:
    if not folder.is_dir():
        return f"no folder {shown(folder)}"
    lacks = [*_lacks(folder), *([] if find_image_source(folder) else [f"{IMAGE_FOLDER}/ or .zip"])]
    return f"no {', '.join(lacks)} in {shown(folder)}"


def _split(folder: Path, lists: CelebALists) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The rows of the training and of the test images."""
    train, test = (np.flatnonzero(lists.partition == part) for part in (_TRAIN, _TEST))
    if len(train) and len(test):
        return train, test
    try:
        tested = split_by_identity(lists.identities)
    except InputError as error:
        raise InputError(f"{shown(folder)}: {error}") from error
    return np.flatnonzero(~tested), np.flatnonzero(tested)


def _images(source: ImageSource, train: Sequence[str], test: Sequence[str], limit: int | None) -> tuple[Tensor, Tensor]:
    """The first ``limit`` training and test images, of the cache's file of all images if there is one or has to be."""
    key = f"celeba-{hashlib.sha256(os.fsencode(source.path)).hexdigest()[:16]}"
    # Those of training come first: each split is then one piece of the file, and nothing is copied.
    names, count = [*train, *test], len(train)
    stamp, shape = source.stamp(names), (len(names), 3, SIZE, SIZE)
    images = find_images(key, stamp=stamp, shape=shape)
    if images is None and limit is not None and limit < max(len(train), len(test)):
        names, count = [*train[:limit], *test[:limit]], min(count, limit)
        key, stamp, shape = f"{key}-first-{limit}", source.stamp(names), (len(names), *shape[1:])
    if images is None:
        images = cached_images(key, stamp=stamp, shape=shape, decode=lambda: decode(source, names))
    return images[:count][:limit], images[count:][:limit]


def _names(lists: CelebALists, rows: NDArray[np.intp]) -> Sequence[str]:
    return [lists.names[row] for row in rows]


def _labels(lists: CelebALists, rows: NDArray[np.intp]) -> dict[str, Tensor]:
    values = torch.from_numpy(lists.attributes[rows].T.astype(np.int64))
    return dict(zip(lists.tasks, values, strict=True))
