"""Zip files that nobody vouches for: read in place, nothing of them unpacked to the disk, no entry beyond its bound."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyro_avae.errors import InputError, shown_value
from pyro_avae.paths import shown

__all__ = ["entry_content", "opened_zip"]

#: zipfile unpacks these as far as it is asked to, others a block at a time, whatever comes out of it.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def opened_zip(path: Path, *, of: str) -> Iterator[zipfile.ZipFile]:
    """The archive, its directory read.

    Args:
        path: the file.
        of: what is expected in it, for the message.

    Raises:
        InputError: no zip, or one whose directory is damaged.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # whatever a broken file runs zipfile into
        reason = " ".join(str(error).split())
        reason = reason if reason.isprintable() else shown_value(reason)
        raise InputError(
            f"{shown(path)}: expected a zip of {of}, got {type(error).__name__}: {reason}; fetch it again"
        ) from error
    with archive:
        yield archive


def entry_content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, *, most: int) -> bytes:
    """An entry's bytes, of which no more are ever unpacked than ``most`` and one.

    Raises:
        ValueError: there are more, or they are compressed in another way than "deflate".
        Exception: what zipfile raises where the entry is damaged or encrypted.
    """
    if entry.compress_type not in _BOUNDED:
        raise ValueError(f"compression method {entry.compress_type}, neither none nor deflate")
    with archive.open(entry) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most} bytes")
    return content
