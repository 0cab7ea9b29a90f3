"""Which builders a run may name: loading a run imports no module that its user did not ask for."""

import importlib.util
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from pyro_avae.errors import InputError, shown_value
from pyro_avae.paths import shown

__all__ = ["LIBRARY", "Trust", "check_trusted", "remember"]

#: What builds the methods in the library's own table.
LIBRARY = "pyro_avae.experiments.methods:build"

#: Of a module that lies in no file, such as ``sys``; it is not remembered.
_NO_FILE = "no file"

#: Builders that a caller vouches for: one ``module:function``, or several.
Trust = str | Collection[str]


def check_trusted(builder: str, *, trust: Trust = (), where: str) -> None:
    """Refuse a builder, before its module is imported, unless somebody asked for it.

    Trusted are the library's own, those in ``trust``, and those that this user has trained with, as long as they come
    from the same file: a run that travels with a module of a known name is not taken for that.

    Args:
        builder: ``"module:function"``, as a run's settings name it.
        trust: builders that the caller vouches for.
        where: begins the error: what names the builder.

    Raises:
        InputError: it is none of these, or no ``module:function``.

    Example:
        >>> check_trusted("pyro_avae.experiments.methods:build", where="config.json: builder")
        >>> check_trusted("their_module:build", where="config.json: builder")
        Traceback (most recent call last):
        pyro_avae.errors.InputError: config.json: builder: expected the library's own or one that you have trained ...
    """
    module, _, function = builder.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *function.split("."))):
        raise InputError(f"{where}: expected module:function, such as my_module:build, got {shown_value(builder)}")
    if builder == LIBRARY or builder in ({trust} if isinstance(trust, str) else trust):
        return
    file = _file_of(module)
    known = _known()
    # Of one that is not found where it was, the import says so.
    if f"{builder} {file}" in known or (not file and any(line.startswith(f"{builder} ") for line in known)):
        return
    raise InputError(
        f"{where}: expected the library's own or one that you have trained with, got {shown_value(builder)}; to load"
        f" it would run the module {shown_value(module)}{f' of {file}' if file else ''}; if you trust that, give"
        f" --trust {builder} (in Python trust={builder!r})"
    )


def remember(builder: str) -> None:
    """Add a builder, with the file that its module is in, to those that this user has trained with.

    Where the list cannot be written, the builder is not remembered, and nothing else happens.
    """
    path, module_file = _list(), _file_of(builder.partition(":")[0])
    entry = f"{builder} {module_file}"
    if builder == LIBRARY or path is None or module_file in ("", _NO_FILE) or entry in _known():
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab", buffering=0) as file:
            file.write(f"{entry}\n".encode())  # one write: two processes do not mix their lines


def _known() -> set[str]:
    """The lines of the list: ``module:function FILE``."""
    path = _list()
    try:
        return set() if path is None else set(path.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return set()


def _list() -> Path | None:
    """``$XDG_STATE_HOME/pyro_avae/builders``; None where no home folder is known."""
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    try:
        state = state if state.is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError:
        return None
    return state / "pyro_avae" / "builders"


def _file_of(module: str) -> str:
    """Where the module's outermost package would be imported from, without importing it; empty where nowhere."""
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except ValueError:  # the script that runs, and what was put together by hand
        return _NO_FILE
    if spec is None:
        return ""
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return shown(os.pathsep.join(str(Path(place).resolve()) for place in places)) or _NO_FILE
