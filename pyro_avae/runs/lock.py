"""One training for a folder at a time."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyro_avae.errors import InputError
from pyro_avae.paths import shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "exclusive"]

#: The file's name. It stays where it is: to remove it would let two processes hold one each.
LOCK = ".lock"

#: Folders that this process itself trains in; the lock is between processes.
_mine: set[Path] = set()


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, which is there.

    The lock is the process's own (a POSIX record lock): it ends with it, killed or not, and no child that outlives it
    inherits it. Where the system has none, only this process is kept from training there twice.

    Raises:
        InputError: another training holds it, or the lock's file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, exclusive(Path(name)), exclusive(Path(name)):
        ...     pass
        Traceback (most recent call last):
        pyro_avae.errors.InputError: ...: this process trains there already; give another folder
    """
    place = folder.resolve()
    if place in _mine:
        raise InputError(f"{shown(folder)}: this process trains there already; give another folder")
    try:
        # A link is not followed: what is written below would end in another file.
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        descriptor = os.open(folder / LOCK, flags, 0o666)
    except OSError as error:
        if (folder / LOCK).is_symlink():
            raise InputError(f"{shown(folder / LOCK)}: expected a plain file, got a link; remove it") from None
        raise InputError(f"{shown(folder)}: cannot be written to: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{shown(folder / LOCK)}: expected a plain file, got something else; remove it")
    file = os.fdopen(descriptor, "r+", errors="replace")
    with file:
        if fcntl is not None:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = shown(file.read(100).strip() or "another process")
                raise InputError(
                    f"{shown(folder)}: {holder} trains there; wait for its end, or give another folder"
                ) from None
        with suppress(OSError):  # a full disk: the words alone are missing
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        _mine.add(place)
        try:
            yield
        finally:
            _mine.discard(place)
