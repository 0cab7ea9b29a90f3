"""Paths that a user gave: how they are resolved, looked at and shown in a message of one line."""

from pathlib import Path

from pyro_avae.errors import InputError

__all__ = ["is_regular_file", "shown", "user_path"]


def shown(path: str | Path) -> str:
    r"""The path as a message of one line shows it: escaped if it holds line breaks or undecodable bytes.

    Example:
        >>> shown("runs/a.png"), shown("runs/a\nb.png")
        ('runs/a.png', "'runs/a\\nb.png'")
    """
    text = str(path)
    return text if text.isprintable() else ascii(text)


def user_path(path: str | Path) -> Path:
    """The absolute path, a leading ``~`` expanded; raises :class:`InputError` where the home folder is unknown."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"{shown(path)}: expected a path, but no home folder stands behind its '~'") from error


def is_regular_file(path: Path) -> bool:
    """Whether a file can be read there, links followed; raises :class:`InputError` where looking is not allowed."""
    try:
        return path.is_file()
    except OSError as error:
        raise InputError(f"{shown(path)}: expected a file that can be looked at, got {error.strerror}") from error
