"""A method: the triple (model, guide, ELBO), and the function that makes it of settings."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from pyro.infer import ELBO
from torch import nn

from pyro_avae.errors import InputError, shown_value
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.trust import Trust, check_trusted

__all__ = ["Builder", "Triple", "as_triple", "build_triple", "import_builder"]


class Triple(NamedTuple):
    """A Pyro model, a Pyro guide, and the ELBO that is maximised on the pair."""

    model: nn.Module
    guide: nn.Module
    elbo: ELBO


#: Makes a triple of a run's settings; a user's own may return any tuple of the three.
Builder = Callable[[Settings], tuple[nn.Module, nn.Module, ELBO]]


def import_builder(path: str, *, trust: Trust = (), where: str = "method") -> Builder:
    """The function that ``"module:function"`` names, e.g. ``"pyro_avae.experiments.methods:build"``.

    Args:
        path: what names it.
        trust: builders that the caller vouches for, see :func:`~pyro_avae.runs.trust.check_trusted`.
        where: what names the builder, for the error.

    Raises:
        InputError: not of that form, nobody asked for its module, a module that cannot be imported (why is said), or
            no such function in it.

    Example:
        >>> import_builder("pyro_avae.experiments.methods:build").__name__
        'build'
    """
    check_trusted(path, trust=trust, where=where)
    module_name, _, function_name = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        hint = _where_to_run(module_name) if _is_missing(module_name, error) else ""
        raise InputError(f"method: {path}: importing {module_name} failed: {_cause(error)}{hint}") from error
    for name in function_name.split("."):
        found = getattr(found, name, None)
    if not callable(found):
        raise InputError(f"method: expected a function {function_name!r} in the module {module_name}, found none")
    _check_takes_settings(found, path)
    builder: Builder = found
    return builder


def _check_takes_settings(function: Callable[..., Any], path: str) -> None:
    """Refuse what cannot be called with one argument; an error inside the function keeps its traceback."""
    try:
        inspect.signature(function).bind(None)
    except TypeError as error:
        raise InputError(f"method: {path}: expected a function of the settings, build(settings): {error}") from None
    except ValueError:  # a builtin that does not say what it takes
        return


def build_triple(builder: Builder, settings: Settings, *, what: str) -> Triple:
    """What the builder makes of the settings.

    Raises:
        InputError: it is no triple, or networks that do not fit into memory.
    """
    try:
        return as_triple(builder(settings), what=what)
    except (MemoryError, RuntimeError) as error:
        # torch's own words: what the allocator does not have, or a size that no number of bytes can be.
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in ("alloc", "overflow")):
            raise
        raise InputError(
            f"hidden, latent_dim: networks of widths {settings.hidden} and {settings.latent_dim} latents do not fit"
            " into memory"
        ) from error


def as_triple(made: object, *, what: str) -> Triple:
    """``made`` as a :class:`Triple`; :class:`InputError`, beginning with ``what``, where it is not one."""
    expected = f"{what}: expected it to return (model, guide, elbo), two torch modules and a Pyro ELBO"
    if not isinstance(made, tuple | list) or len(made) != 3:
        raise InputError(f"{expected}, got {shown_value(type(made).__name__)}")
    model, guide, elbo = made
    if not isinstance(model, nn.Module) or not isinstance(guide, nn.Module) or not isinstance(elbo, ELBO):
        raise InputError(f"{expected}, got ({', '.join(type(part).__name__ for part in made)})")
    return Triple(model, guide, elbo)


def _is_missing(module_name: str, error: Exception) -> bool:
    """Whether it is the module itself, or its package, that was not found: no module that it imports in turn."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and f"{module_name}.".startswith(f"{missing}.")


def _where_to_run(module_name: str) -> str:
    first, dot, _ = module_name.partition(".")
    return f"; run from the folder that holds {first}{'' if dot else '.py'}, or put it on PYTHONPATH"


def _cause(error: Exception) -> str:
    """The error in one line, with the file and line of the code that raised it."""
    place, trace = "", error.__traceback__
    while trace is not None:
        place, trace = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})", trace.tb_next
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}{'' if isinstance(error, ModuleNotFoundError) else place}"
