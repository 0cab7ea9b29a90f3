"""MNIST, binarised once and for all: the files that densities of binary images are compared on."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_avae.data.order import shuffled
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import is_regular_file, shown

__all__ = ["load_static_mnist"]

_NAME, _FOLDER = "binarized-mnist", "MNIST_static"
_FILES = {part: f"binarized_mnist_{part}.amat" for part in ("train", "test")}
_SIZE = 28


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
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{shown(file)}: cannot be read: {error}; fetch the file again") from error
    symbols = np.frombuffer(content, dtype=np.uint8)
    ones, zeros = symbols == ord("1"), symbols == ord("0")
    digits = ones | zeros
    count, rest = divmod(int(digits.sum()), _SIZE**2)
    if not count or rest or not np.isin(symbols[~digits], list(b" \t\r\n")).all():
        raise InputError(f"{shown(file)}: expected lines of {_SIZE**2} numbers 0 or 1, got other text; fetch it again")
    values = ones[digits].reshape(count, 1, _SIZE, _SIZE).astype(np.uint8) * 255
    return torch.from_numpy(values)
