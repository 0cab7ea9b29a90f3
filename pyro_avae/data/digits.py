"""Scikit-learn's bundled handwritten digits, at the size of MNIST: real images that need no download."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from pyro_avae.data.split import ImageData, Split

__all__ = ["load_digits"]

_SIZE = 28
_MAX_LEVEL = 16
_TEST_IMAGES = 360


def load_digits() -> ImageData:
    """1437 training and 360 test digits, 1x28x28 grey, task ``digit``.

    The 8x8 images of 17 grey levels are upsampled bilinearly (no antialiasing, corners not aligned) and
    rounded to 256 levels. The split is stratified by digit, shuffled and always the same.

    Example:
        >>> data = load_digits()
        >>> data.shape, len(data.train), len(data.test)
        ((1, 28, 28), 1437, 360)

    Source: E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning
        Repository, 1998.
    """
    # Only here, since not everybody wants these digits, and importing it takes a draw from Python's `random`.
    from sklearn.datasets import load_digits as load_sklearn_digits
    from sklearn.model_selection import train_test_split

    bunch = load_sklearn_digits()
    images = _upsample(torch.from_numpy(np.asarray(bunch.images, dtype=np.float64)))
    labels = torch.from_numpy(np.asarray(bunch.target, dtype=np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=_TEST_IMAGES, stratify=labels.numpy(), random_state=0
    )
    return ImageData(
        name="digits",
        train=Split(images[train], {"digit": labels[train]}),
        test=Split(images[test], {"digit": labels[test]}),
        class_names={"digit": tuple(map(str, range(10)))},
    )


def _upsample(levels: Tensor) -> Tensor:
    """(N, 8, 8) levels in 0..16 to uint8 (N, 1, 28, 28)."""
    grey = interpolate(levels[:, None] / _MAX_LEVEL, size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
    # Level 8 is 127.5 of 255: the small offset rounds it up on every machine, whatever the last bit.
    return (grey * 255 + 1e-6).round().to(torch.uint8)
