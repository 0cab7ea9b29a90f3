"""Files that are there whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown

__all__ = ["read_json", "write_atomically", "write_json"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, force it to the disk, and rename it: no reader ever sees a part of it.

    Raises:
        OSError: the disk is full, the folder cannot be written to, ...; what was at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_json(path: Path, document: Any) -> None:
    """:func:`write_atomically` of a document as JSON; a NaN in it is a ValueError, since JSON has none."""
    write_atomically(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """The document in a JSON file.

    Raises:
        InputError: no such file, one that cannot be read, or no JSON in it.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{shown(path)}: expected a JSON file, found none") from None
    except OSError as error:
        raise InputError(f"{shown(path)}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{shown(path)}: expected JSON, got a damaged file: {str(error).partition(chr(10))[0]}"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Force a rename to the disk; where folders cannot be opened (Windows) there is nothing to do."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
