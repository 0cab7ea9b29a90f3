"""Downloads of MNIST and its relatives into a per-user cache, all of the files or none."""

import os
import tempfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown, user_path

__all__ = ["cache_root", "download"]


def cache_root() -> Path:
    """The folder that downloads go to: ``$XDG_CACHE_HOME/pyro_avae``, by default ``~/.cache/pyro_avae``.

    Example:
        >>> cache_root().name
        'pyro_avae'
    """
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification: a relative path there is invalid and has to be ignored.
    base = configured if configured.is_absolute() else user_path("~/.cache")
    return base / "pyro_avae"


def download(folder: str, root: Path) -> None:
    """Puts the files of torchvision's data set ``folder`` into ``root/folder/raw``.

    torchvision downloads them, checks their MD5 sums and decodes them in a temporary folder; only then is
    each moved to its place. A download that fails or is killed leaves nothing in ``root/folder``.

    Args:
        folder: the name of torchvision's class, which is also that of its folder: ``MNIST``,
            ``FashionMNIST``.
        root: a folder that may be written to; made if it is not there.

    Raises:
        InputError: no network, a damaged download, no space, no permission.
    """
    try:
        import torchvision.datasets  # takes a second, and nothing else here needs it

        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as scratch:
            _fetch(getattr(torchvision.datasets, folder), scratch)
            target = root / folder / "raw"
            target.mkdir(parents=True, exist_ok=True)
            for file in (Path(scratch) / folder / "raw").glob("*.gz"):
                file.replace(target / file.name)
    except (ImportError, RuntimeError, OSError, HTTPException) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{folder}: expected to download it to {shown(root / folder / 'raw')}, got {type(error).__name__}: "
            f"{reason}; name a data root that holds {folder}/raw, or use color-digits, which needs no download"
        ) from error


def _fetch(dataset: Any, root: str) -> None:
    """torchvision's download of a class into a folder; a damaged file is named, which torchvision 0.26 leaves out."""
    from torchvision.datasets.utils import check_integrity

    try:
        dataset(root=root, download=True)
    except RuntimeError as error:
        found = [(Path(root) / dataset.__name__ / "raw" / name, md5) for name, md5 in dataset.resources]
        damaged = [file.name for file, md5 in found if file.is_file() and not check_integrity(file, md5)]
        if all(name in str(error) for name in damaged):
            raise
        raise RuntimeError(f"{', '.join(damaged)}: {error}") from error
