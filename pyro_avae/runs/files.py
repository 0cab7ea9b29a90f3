"""Files that are there whole or not at all, and are nothing but files."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown

__all__ = ["read_json", "read_plain", "write_atomically", "write_json"]


def write_atomically(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, force it to the disk, and rename it: no reader ever sees a part of it.

    A link at ``path`` is replaced and not followed, and so is one where the content is first written.

    Raises:
        OSError: the disk is full, the folder cannot be written to, ...; what was at ``path`` is still there.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # of a write that was killed, or of somebody who would have us follow it
        with temporary.open("xb") as file:
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


def read_plain(path: Path) -> bytes:
    """The content of a file, links followed.

    Raises:
        OSError: none there, one that cannot be read, or what is no plain file: a pipe would be waited for, and a device
            has no end.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "not a plain file", str(path))
        return file.read()


def read_json(path: Path) -> Any:
    """The document in a JSON file.

    Raises:
        InputError: no such file, one that cannot be read, or no JSON in it.
    """
    try:
        return json.loads(read_plain(path))
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
