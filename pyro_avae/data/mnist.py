"""MNIST and Fashion-MNIST, read where torchvision lays them out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_avae.data.download import cache_root, download
from pyro_avae.data.idx import find_idx, read_idx
from pyro_avae.data.split import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.paths import shown

__all__ = ["FASHION_MNIST", "MNIST", "MNISTLike", "load_mnist"]

_SIZE = 28


@dataclass(frozen=True)
class MNISTLike:
    """A data set in the four idx files of MNIST.

    Args:
        name: what :func:`~pyro_avae.data.load_dataset` calls it.
        folder: torchvision's class, and its folder in a data root.
        task: what the labels are of.
        classes: the labels' names, in their order.
    """

    name: str
    folder: str
    task: str
    classes: tuple[str, ...]


MNIST = MNISTLike("mnist", "MNIST", "digit", tuple(map(str, range(10))))
FASHION_MNIST = MNISTLike(
    "fashion-mnist",
    "FashionMNIST",
    "class",
    (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
)

_PREFIXES = ("train", "t10k")


def load_mnist(source: MNISTLike, root: Path | None) -> ImageData:
    """A data set in the four idx files of MNIST, 1x28x28 grey.

    The files, plain or with ``.gz``, lie in ``root/FOLDER/raw``; they are read in place and nothing is
    written there.

    Args:
        source: which one.
        root: a data root as torchvision lays it out. None: the per-user cache, filled by a download if need
            be.

    Raises:
        InputError: files are missing, damaged, of another size, or do not belong together.

    Source: Y. LeCun et al., *Gradient-based learning applied to document recognition*, 1998; H. Xiao et al.,
    *Fashion-MNIST*, arXiv:1708.07747.
    """
    raw = _cached(source) if root is None else root / source.folder / "raw"
    if missing := _missing(raw):
        raise InputError(
            f"{source.name}: expected the files that torchvision's {source.folder} downloads, plain or with .gz, "
            f"in {shown(raw)}, got no {', '.join(missing)}; put them there, leave the data root out to download "
            "them, or use color-digits, which needs no download"
        )
    train, test = (_read_split(raw, prefix, source) for prefix in _PREFIXES)
    return ImageData(source.name, train, test, {source.task: source.classes})


def _cached(source: MNISTLike) -> Path:
    root = cache_root()
    raw = root / source.folder / "raw"
    if _missing(raw):
        download(source.folder, root)
    return raw


def _missing(raw: Path) -> Sequence[str]:
    files = (path for prefix in _PREFIXES for path in _paths(raw, prefix))
    return [path.name for path in files if find_idx(path) is None]


def _paths(raw: Path, prefix: str) -> tuple[Path, Path]:
    return raw / f"{prefix}-images-idx3-ubyte", raw / f"{prefix}-labels-idx1-ubyte"


def _read_split(raw: Path, prefix: str, source: MNISTLike) -> Split:
    image_path, label_path = _paths(raw, prefix)
    images, labels = read_idx(image_path, ndim=3), read_idx(label_path, ndim=1)
    _check(images, labels, image_path, label_path, len(source.classes))
    return Split(images[:, None], {source.task: labels.to(torch.int64)})


def _check(images: Tensor, labels: Tensor, image_path: Path, label_path: Path, classes: int) -> None:
    height, width = images.shape[1:]
    if (height, width) != (_SIZE, _SIZE):
        raise InputError(f"{shown(image_path)}: expected images of {_SIZE}x{_SIZE}, got {height}x{width}")
    if len(images) != len(labels):
        raise InputError(
            f"{shown(label_path)}: expected {len(images)} labels, as many as images in {image_path.name}, "
            f"got {len(labels)}"
        )
    if (largest := int(labels.max())) >= classes:
        raise InputError(f"{shown(label_path)}: expected labels in 0..{classes - 1}, got {largest}")
