"""MNIST, binarised once and for all: the files that densities of binary images are compared on."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_avae.data.order import shuffled
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["load_static_mnist"]

_NAME, _FOLDER = "binarized-mnist", "MNIST_static"
_FILES = {part: f"binarized_mnist_{part}.amat" for part in ("train", "test")}
_SIZE = 28
# Nearly twice the file of training images; a gzip file of a few kilobytes could fill any memory.
_MOST_BYTES = 1 << 27


def load_static_mnist(root: Path | None) -> ImageData:
    """The fixed binarisation of MNIST: 50,000 training and 10,000 test images, 1x28x28, 0 or 255, without labels.

    ``root/MNIST_static/binarized_mnist_{train,test}.amat``, plain or with ``.gz``: text, an image of 784 numbers 0 or
    1 a line. The 10,000 images of ``binarized_mnist_valid`` are in neither split. The file of test images holds one
    digit after the other: they are shuffled here, the same everywhere (:func:`~pyro_avae.data.order.shuffled`), so that
    the first of them are of all digits.

    Args:
        root: the data root.

    Raises:
        InputError: no root, or files that are missing or damaged.

    Source: H. Larochelle, I. Murray, *The Neural Autoregressive Distribution Estimator*, AISTATS 2011; binarised by
        R. Salakhutdinov.
    """
    if root is None:
        raise InputError(f"{_NAME}: expected a data root with {_FOLDER}/{_FILES['train']}; it is not downloaded")
    train, test = (_read(root / _FOLDER / name) for name in _FILES.values())
    return ImageData(_NAME, Split(train, {}), Split(test[torch.from_numpy(shuffled(len(test)))], {}), {})


def _read(path: Path) -> Tensor:
    gzipped = path.with_name(path.name + ".gz")
    file = next((file for file in (path, gzipped) if is_regular_file(file)), None)
    if file is None:
        raise InputError(f"{_NAME}: expected {shown(path)}, plain or with .gz, got neither")
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{shown(file)}: cannot be read: {error}; fetch the file again") from error
    if len(content) > _MOST_BYTES:
        raise InputError(f"{shown(file)}: expected at most {_MOST_BYTES} characters, got more; fetch it again")
    symbols = np.frombuffer(content, dtype=np.uint8)
    ones, zeros = symbols == ord("1"), symbols == ord("0")
    digits = ones | zeros
    count, rest = divmod(int(digits.sum()), _SIZE**2)
    others = symbols[~digits]
    if (
        not count
        or rest
        or not np.isin(others, list(b" \t\r\n")).all()
        or not _is_in_lines(digits, symbols == ord("\n"))
    ):
        raise InputError(f"{shown(file)}: expected lines of {_SIZE**2} numbers 0 or 1, got other text; fetch it again")
    values = ones[digits].reshape(count, 1, _SIZE, _SIZE).astype(np.uint8) * 255
    return torch.from_numpy(values)


def _is_in_lines(digits: NDArray[np.bool_], ends: NDArray[np.bool_]) -> bool:
    """Whether every line holds the numbers of one image, or none."""
    starts = np.concatenate([[0], np.flatnonzero(ends[:-1]) + 1])
    counts = np.add.reduceat(digits, starts, dtype=np.int64)
    return bool(np.isin(counts, (0, _SIZE**2)).all())
