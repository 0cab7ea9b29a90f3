"""A program traced once, through Pyro's handlers, into a graph of tensor operations."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pyro
import torch
from pyro.poutine.runtime import apply_stack
from torch import Tensor, fx
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_avae.compilation.base_noise import BaseNoise, NoiseSource, NoiseSpec
from pyro_avae.compilation.graph_passes import drop_unchanged_buffers, functional, lift_constants, merge_equal
from pyro_avae.compilation.inductor import Inductor
from pyro_avae.compilation.program import Outputs, Program
from pyro_avae.errors import InputError

__all__ = ["TracedProgram", "being_traced", "noise_of", "run_with_noise", "trace_program"]


def being_traced() -> bool:
    """Whether what runs now is being written down, for what would make too long a graph."""
    return get_proxy_mode() is not None


def noise_of(program: Program, args: Sequence[Any]) -> list[NoiseSpec]:
    """The standard noise that a program draws on these arguments, in order; nothing is left changed."""
    specs: list[NoiseSpec] = []
    source = NoiseSource(0)

    def recorded(spec: NoiseSpec) -> Tensor:
        specs.append(spec)
        return source.draw(spec)

    with _quiet(), BaseNoise(recorded, otherwise=_refused):
        program(list(program.parameters.values()), program.buffers, *args)
    return specs


def run_with_noise(
    program: Program, parameters: Sequence[Tensor], buffers: Sequence[Tensor], noise: Sequence[Tensor], *args: Any
) -> Outputs:
    """The program on given noise."""
    given = iter(noise)
    with BaseNoise(lambda spec: next(given), otherwise=_refused):
        return program(parameters, buffers, *args)


class TracedProgram:
    """The graph of a program for arguments of one shape, dtype and device.

    Args:
        graph: of parameters, buffers, noise, constants and the arguments that are tensors, one after the other.
        specs: the noise that it wants.
        constants: tensors that the program reads from outside (``delta`` of a view, a weight that changes): inputs,
            so that a change in place is seen.
        changed: places of the buffers that the program changes; the graph returns no others.
        names: of the terms that it returns.
        entropy_names: of the entropies behind them.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        *,
        specs: Sequence[NoiseSpec],
        constants: Sequence[Tensor],
        changed: Sequence[int],
        names: Sequence[str],
        entropy_names: Sequence[str],
    ) -> None:
        self.graph, self.specs, self.constants = graph, specs, constants
        self.changed, self.names, self.entropy_names = changed, names, entropy_names
        self.run: Callable[[list[Tensor]], Any] = lambda tensors: graph(*tensors)

    def __call__(
        self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], noise: Iterable[Tensor], *args: Any
    ) -> Outputs:
        """Run the graph, or what it was compiled to, which frees noise that is in nobody's hands after its last use."""
        tensors = (arg for arg in args if isinstance(arg, Tensor))
        with torch.no_grad():
            loss, terms, gradients, left, total = self.run([*parameters, *buffers, *noise, *self.constants, *tensors])
        return Outputs(loss, terms, gradients, left, total)

    def compile(self) -> None:
        """Have inductor compile the graph at its next run."""
        self.run = Inductor(self.graph)


def trace_program(program: Program, args: Sequence[Any]) -> TracedProgram:
    """Trace a program on these arguments; parameters, buffers and random states stay as they are.

    Raises:
        InputError: what cannot be traced: a look at a number (``.item()``, an ``if`` on a tensor), a shape that depends
            on data, a random operation that is no function of standard noise, a ``pyro.param`` statement. The site or
            the line is named.
    """
    try:
        specs = noise_of(program, args)
    except InputError as error:
        raise InputError(_first_line(error)) from error
    parameters = [parameter.detach() for parameter in program.parameters.values()]
    source = NoiseSource(0)
    noise = [source.draw(spec) for spec in specs]
    places = [place for place, arg in enumerate(args) if isinstance(arg, Tensor)]

    def flat(*tensors: Tensor) -> list[Any]:
        with _NoNumbers():  # type: ignore[no-untyped-call]
            return list(run(*tensors))

    def run(*tensors: Tensor) -> Outputs:
        counts = (len(parameters), len(program.buffers), len(noise))
        given, start = [], 0
        for count in counts:
            given.append(list(tensors[start : start + count]))
            start += count
        whole = list(args)
        for place, tensor in zip(places, tensors[start:], strict=True):
            whole[place] = tensor
        return run_with_noise(program, *given, *whole)

    inputs = [*parameters, *program.buffers, *noise, *(args[place] for place in places)]
    traced = make_fx(flat, decomposition_table=_DECOMPOSED, tracing_mode="fake", _allow_non_fake_inputs=True)
    try:
        with _quiet():
            graph = traced(*inputs)
    except InputError as error:
        raise InputError(_first_line(error)) from error
    constants = lift_constants(graph, before=len(places))
    behind = len(inputs) - len(places)
    graph = functional(graph, [*inputs[:behind], *constants, *inputs[behind:]])
    merge_equal(graph)
    changed = drop_unchanged_buffers(graph)
    return TracedProgram(
        graph,
        specs=specs,
        constants=constants,
        changed=changed,
        names=program.names,
        entropy_names=program.entropy_names,
    )


class _NoNumbers(TorchDispatchMode):
    """Refuses what makes numbers, or shapes, of values that a trace does not know; those of constants it knows."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.SymInt | torch.SymFloat | torch.SymBool):
            raise _untraceable(f"{func} looks at a number")
        if isinstance(found, Tensor) and any(isinstance(size, torch.SymInt) for size in found.shape):
            raise _untraceable(f"{func} makes a shape that depends on data")
        return found


# It writes to the running statistics, and its schema does not say so: what the graph is simplified by would lose them.
_DECOMPOSED: Any = get_decompositions([torch.ops.aten.native_batch_norm])


def _first_line(error: Exception) -> str:
    """The error itself, without the shapes of all sites that Pyro adds."""
    return str(error).partition("\n")[0]


def _quiet() -> Any:
    """Without Pyro's validation, which looks at numbers."""
    return pyro.validation_enabled(False)


def _refused(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    raise _untraceable(f"{operation} draws random numbers that are no function of standard noise")


def _untraceable(what: str) -> InputError:
    site, line = _site(), _line()
    where = ", ".join(filter(None, [site and f"site {site!r}", line]))
    return InputError(
        f"{where or 'program'}: {what}, which a compiled step cannot have; run it eagerly (compile=False, --no-compile)"
    )


def _frames() -> Iterator[FrameType]:
    """The frames from here outwards."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _site() -> str | None:
    """Name of the innermost Pyro site that was being run."""
    for frame in _frames():
        if frame.f_code is apply_stack.__code__:
            return str(frame.f_locals["initial_msg"]["name"])
    return None


_OURS = Path(__file__).parent
_LIBRARIES = tuple(str(Path(module.__file__).parent) for module in (torch, pyro) if module.__file__)


def _line() -> str | None:
    """``file:line`` of the innermost frame that is neither torch's nor Pyro's nor this package's."""
    for frame in _frames():
        name = frame.f_code.co_filename
        if not name.startswith((*_LIBRARIES, str(_OURS), "<")):
            return f"{name}:{frame.f_lineno}"
    return None
