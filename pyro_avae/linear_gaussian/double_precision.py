"""Running float32 programs in float64, with gradients that reach the original parameters."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_avae.swapping import swapped_tensors

__all__ = ["create_parameters", "in_double", "trainable_parameters"]

Program = Callable[..., Any]
Result = TypeVar("Result")


def in_double(call: Callable[[], Result], *programs: Program) -> Result:
    """Return ``call()``, run while every parameter and buffer of the programs is its own float64 cast.

    The casts are differentiable: gradients of the result reach the original parameters. Parameters in Pyro's global
    store are cast as well, and the default dtype is float64 meanwhile, so that constants made on the way fit in.

    Args:
        call: what to run; it calls the programs.
        programs: modules, methods of modules, or functions that use modules of their closure.
    """
    modules = [part for program in programs for module in _modules_of(program) for part in module.modules()]
    with (
        swapped_tensors(modules, Tensor.double, buffers=True) as casts,
        _DoubleStore({id(cast) for cast in casts.values()}),
        _default_dtype(torch.float64),
    ):
        return call()


def create_parameters(model: Program, guide: Program, x: Tensor) -> None:
    """Run the pair once as it is, so that parameters that ``pyro.param`` makes on first use have their own dtype.

    The random state is left as it was. What fails here fails again, and is explained, when the pair is read.
    """
    with torch.random.fork_rng(), torch.no_grad(), suppress(ValueError, RuntimeError):
        guide_trace = poutine.trace(guide).get_trace(x)
        poutine.replay(model, trace=guide_trace)(x)


def trainable_parameters(call: Callable[[], Any], model: Program, guide: Program) -> dict[str, Tensor]:
    """The trainable leaves of a pair by name: those of its modules, then those of Pyro's store that ``call`` uses."""
    found: dict[str, Tensor] = {}
    for role, program in (("model", model), ("guide", guide)):
        for module in _modules_of(program):
            found |= {f"{role}.{name}": p for name, p in module.named_parameters() if p.requires_grad}
    with torch.no_grad(), pyro.poutine.trace(param_only=True) as capture:
        call()
    for name, site in capture.trace.nodes.items():
        value: Any = site["value"]
        if site["type"] == "param":
            found[name] = value.unconstrained()
    return dict(_without_repeats(found))


def _without_repeats(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    seen = set()
    for name, tensor in tensors.items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _modules_of(program: Program) -> Iterator[nn.Module]:
    """The modules that a program uses: itself and what it refers to, its object's if it is a method, its closure's."""
    if isinstance(program, nn.Module):
        yield program
        # a guide holds its model unregistered, in a tuple
        yield from _modules_in(tuple(vars(program).values()))
    elif isinstance(program, partial):
        yield from _modules_of(program.func)
    elif inspect.ismethod(program):
        owner = program.__self__
        yield from _modules_of(owner) if isinstance(owner, nn.Module) else _modules_in(vars(owner))
    elif inspect.isfunction(program):
        used = inspect.getclosurevars(program)
        yield from _modules_in({**used.globals, **used.nonlocals})


def _modules_in(value: Any) -> Iterator[nn.Module]:
    """The modules that a value is or contains, looking into tuples, lists and dictionaries."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, Mapping):
        yield from _modules_in(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _modules_in(item)


class _DoubleStore(Messenger):
    """Casts what ``pyro.param`` returns; a swapped module parameter passes as it is and never enters the store."""

    def __init__(self, swapped: set[int]) -> None:
        super().__init__()
        self.swapped = swapped

    def _pyro_param(self, msg: Any) -> None:
        if len(msg["args"]) > 1 and id(msg["args"][1]) in self.swapped:
            msg["value"], msg["done"] = msg["args"][1], True

    def _pyro_post_param(self, msg: Any) -> None:
        if msg["value"].is_floating_point():
            msg["value"] = msg["value"].double()


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
