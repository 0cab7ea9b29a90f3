"""Finding random numbers that a Pyro program draws behind Pyro's back."""

import random
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_avae.errors import InputError

__all__ = ["no_other_randomness"]

_LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (torch, pyro) if module.__file__)
_WAY_OUT = "draw it with pyro.sample, or in a guide with pyro_avae.auxiliary; a WorstCase view searches, take Perturbed"


@contextmanager
def no_other_randomness() -> Iterator[None]:
    """Refuse every random number drawn inside, be it from torch, NumPy or Python.

    Raises:
        InputError: names the function that drew it, and for torch the line of the program that called it.
    """
    states = random.getstate(), _numpy_state()
    with _RandomOperations():  # type: ignore[no-untyped-call]
        yield
    if random.getstate() != states[0]:
        raise InputError(f"randomness outside Pyro sites: Python's random module; {_WAY_OUT}")
    if not all(map(np.array_equal, _numpy_state(), states[1])):
        raise InputError(f"randomness outside Pyro sites: numpy.random; {_WAY_OUT}")


def _numpy_state() -> tuple[Any, ...]:
    """The state of NumPy's global generator, the one a program can have used without our seeing it."""
    return tuple(np.random.get_state())  # noqa: NPY002


class _RandomOperations(TorchDispatchMode):
    """Raises at the first torch operation whose result depends on a random number generator."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise InputError(f"randomness outside Pyro sites: {func} called at {_caller()}; {_WAY_OUT}")
        return func(*args, **(kwargs or {}))


def _caller() -> str:
    """The innermost line outside torch, Pyro and this file: the program's own."""
    for frame in reversed(traceback.extract_stack()):
        if not frame.filename.startswith((*_LIBRARIES, __file__)):
            return f"{frame.filename}:{frame.lineno} in {frame.name}"
    return "an unknown place"
