"""The silhouettes of Caltech-101."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pyro_avae.data.matlab import read_matrices
from pyro_avae.data.order import number_hash, shuffled
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["load_silhouettes"]

_NAME, _FOLDER = "caltech-silhouettes", "Caltech101Silhouettes"
_SPLIT, _WHOLE = "caltech101_silhouettes_28_split1.mat", "caltech101_silhouettes_28.mat"
_CLASS_NAMES = "classnames"
_SIZE, _CLASSES, _TEST_PART = 28, 101, 4


def load_silhouettes(root: Path | None) -> ImageData:
    """Silhouettes of objects, 1x28x28, 255 in the object and 0 around it, of 101 classes.

    ``root/Caltech101Silhouettes/caltech101_silhouettes_28_split1.mat`` with its training and test images where it is
    there (its validation images are in neither split); else ``caltech101_silhouettes_28.mat``, all 8,671 images, of
    which those are tested whose number, written in decimal, has a SHA-256 of 0 modulo 4. **That split is ours**:
    likelihoods on it are not those of the published one. Both files hold one class after the other: the images of each
    split are shuffled here, the same everywhere (:func:`~pyro_avae.data.order.shuffled`).

    Args:
        root: the data root.

    Raises:
        InputError: no root, or files that are missing, damaged or hold something else.

    Source: B. Marlin, K. Swersky, B. Chen, N. de Freitas, *Inductive Principles for Restricted Boltzmann Machine
        Learning*, AISTATS 2010.
    """
    folder = None if root is None else root / _FOLDER
    files = [folder / name for name in (_SPLIT, _WHOLE)] if folder is not None else []
    file = next((file for file in files if is_regular_file(file)), None)
    if file is None:
        where = "a data root" if folder is None else shown(folder)
        raise InputError(f"{_NAME}: expected {_SPLIT} or {_WHOLE} in {where}, got neither; they are not downloaded")
    parts = [(f"{part}_data", f"{part}_labels") for part in ("train", "test")] if file.name == _SPLIT else [("X", "Y")]
    try:
        content: Mapping[str, Any] = read_matrices(file, [_CLASS_NAMES, *(name for part in parts for name in part)])
        if file.name == _SPLIT:
            train, test = (_split(content[images], content[labels]) for images, labels in parts)
        else:
            images, labels = content["X"], content["Y"].reshape(-1)
            tested = np.array([_is_tested(number) for number in range(len(images))], dtype=bool)
            train, test = (_split(images[part], labels[part]) for part in (~tested, tested))
        names = tuple(content[_CLASS_NAMES])
        if len(set(names)) != _CLASSES:
            raise ValueError(f"{len(names)} names of classes")
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
        raise InputError(
            f"{shown(file)}: expected silhouettes and their classes, got {error}; fetch it again"
        ) from error
    return ImageData(_NAME, train, test, {"class": names})


def _is_tested(number: int) -> bool:
    return int.from_bytes(number_hash(number), "big") % _TEST_PART == 0


def _split(images: NDArray[np.uint8], labels: NDArray[Any]) -> Split:
    if images.ndim != 2 or images.shape[1] != _SIZE**2 or not np.isin(images, (0, 1)).all():
        raise ValueError(f"images of shape {images.shape}")
    labels = labels.reshape(-1)
    if len(labels) != len(images) or not np.isin(labels, np.arange(1, _CLASSES + 1)).all():
        raise ValueError(f"labels of shape {labels.shape}, or beyond 1..{_CLASSES}")
    labels = labels.astype(np.int64)
    # Columns come first in the file, and the object is its 0.
    upright = (1 - images.reshape(-1, _SIZE, _SIZE).transpose(0, 2, 1))[:, None] * np.uint8(255)
    order = shuffled(len(images))
    return Split(torch.from_numpy(np.ascontiguousarray(upright[order])), {"class": torch.from_numpy(labels[order] - 1)})
