"""The data sets by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyro_avae.data.celeba import load_celeba
from pyro_avae.data.color import color_data
from pyro_avae.data.digits import load_digits
from pyro_avae.data.folder import load_folder
from pyro_avae.data.mnist import FASHION_MNIST, MNIST, load_mnist
from pyro_avae.data.mutated import mutated_data
from pyro_avae.data.omniglot import load_omniglot
from pyro_avae.data.silhouettes import load_silhouettes
from pyro_avae.data.split import ImageData
from pyro_avae.data.static_mnist import load_static_mnist
from pyro_avae.data.three_dots import THREE_DOTS, three_dots_data
from pyro_avae.devices import as_device
from pyro_avae.errors import InputError
from pyro_avae.paths import user_path

if TYPE_CHECKING:
    from pyro_avae.evaluation.factors import Generator

__all__ = ["DATASETS", "GENERATORS", "load_dataset"]

DATASETS: dict[str, Callable[[Path | None, int | None], ImageData]] = {
    "color-digits": lambda root, limit: color_data(load_digits()),
    "color-mnist": lambda root, limit: color_data(load_mnist(MNIST, root)),
    "color-fashion-mnist": lambda root, limit: color_data(load_mnist(FASHION_MNIST, root)),
    "mnist": lambda root, limit: load_mnist(MNIST, root),
    "fashion-mnist": lambda root, limit: load_mnist(FASHION_MNIST, root),
    "mutated-mnist": lambda root, limit: mutated_data(load_mnist(MNIST, root)),
    "mutated-fashion-mnist": lambda root, limit: mutated_data(load_mnist(FASHION_MNIST, root)),
    "binarized-mnist": lambda root, limit: load_static_mnist(root),
    "caltech-silhouettes": lambda root, limit: load_silhouettes(root),
    "omniglot": lambda root, limit: load_omniglot(root),
    "celeba": lambda root, limit: load_celeba(root, limit=limit),
    "three-dots": lambda root, limit: three_dots_data(),
}
"""Name to loader: a function of the data root (None: the per-user cache) and of the limit (None: none), on the CPU.

It may return more images than the limit, where reading fewer would not save anything."""

GENERATORS: Mapping[str, "Generator"] = {"three-dots": THREE_DOTS}
"""The data sets that are made from known factors, and what makes them."""

_FOLDER = "folder:"


def load_dataset(
    name: str, *, root: str | Path | None = None, device: str | torch.device = "cpu", limit: int | None = None
) -> ImageData:
    """A data set, held on a device.

    Args:
        name: one of :data:`DATASETS`, or ``folder:PATH`` for one's own images (see
            :func:`~pyro_avae.data.load_folder`). ``color-digits``, ``three-dots`` and ``folder:PATH`` do
            not look at ``root``.
        root: the folder that holds ``MNIST/raw`` and the like, laid out as torchvision does; never written
            to. None: the per-user cache, to which what is missing is downloaded (not ``celeba``; for its files see
            :func:`~pyro_avae.data.celeba.load_celeba`).
        device: where images, labels and every batch live.
        limit: the largest number of images in each split: the first ones, in the colours they have without a
            limit.

    Raises:
        InputError: an unknown name, a limit below 1, a device that is not there, or data that cannot be had.

    Example:
        >>> data = load_dataset("color-digits")
        >>> data.shape, data.tasks, len(data.train), len(data.test)
        ((3, 28, 28), {'digit': 10, 'color': 7}, 1437, 360)
        >>> x, labels = data.test.fixed_batch(torch.arange(2))
        >>> x.shape, labels["digit"].tolist()
        (torch.Size([2, 3, 28, 28]), [7, 6])
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit: expected a number of images of at least 1, got {limit}")
    place = as_device(device)
    if name.startswith(_FOLDER) and name != _FOLDER:
        data = load_folder(name.removeprefix(_FOLDER), limit=limit)
    elif name in DATASETS:
        data = DATASETS[name](None if root is None else user_path(root), limit)
    else:
        raise InputError(f"dataset: expected one of {', '.join(DATASETS)}, {_FOLDER}PATH, got {name!r}")
    return (data if limit is None else data.limit(limit)).to(place)
