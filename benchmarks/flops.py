"""Floating-point operations: how many a step needs, and how many a second the device does."""

from collections.abc import Callable, Sequence
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.contenders import pair
from benchmarks.handwritten import Objective
from benchmarks.timing import fastest
from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.trace import trace_program
from pyro_avae.runs.settings import Settings

__all__ = ["Operation", "by_hand_call", "count", "flop_rate", "operations", "traced_call"]

#: Sides of the square matrices whose product is timed too: large enough to keep a device busy.
SQUARES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}

#: An operation on tensors that counts, and its number of floating-point operations.
Operation = tuple[Callable[[], object], int]


def count(call: Callable[[], object]) -> int:
    """Floating-point operations of matrix products and convolutions (2 B I O for B x I times I x O); no others."""
    with _Seen() as seen:
        call()
    return seen.flops


def traced_call(settings: Settings, x: Tensor) -> Callable[[], object]:
    """Loss and gradients as the compiled step computes them: the traced graph, equal operations merged."""
    model, guide, elbo = pair(settings, x)
    with pyro.validation_enabled(False):
        program = Program(elbo(model, guide), mean=True)
        traced = trace_program(program, (x,))
    source = NoiseSource(0)
    noise = [source.draw(spec) for spec in traced.specs]
    return lambda: traced(list(program.parameters.values()), program.buffers, noise, x)


def by_hand_call(settings: Settings, objective: Objective, x: Tensor) -> Callable[[], object]:
    """Loss and gradients of the objective in plain torch, run eagerly."""
    model, guide, _ = pair(settings, x)
    encoder, decoder = guide.encoder, model.decoder
    return lambda: objective(encoder, decoder, x).backward()  # type: ignore[arg-type]


def operations(call: Callable[[], object]) -> list[Operation]:
    """The matrix products and convolutions of a call, on the tensors that they had; of equal shapes one."""
    with _Seen() as seen:
        call()
    return list(seen.found.values())


def flop_rate(found: Sequence[Operation], *, device: torch.device, dtype: torch.dtype, seconds: float) -> float:
    """Floating-point operations a second: the best of these operations, and of products of large square matrices.

    The latter because small products on a fast device measure how fast they are launched: a rate that is too low
    would make a floor that is too high.

    Args:
        found: operations of the step.
        device: that of their tensors.
        dtype: likewise.
        seconds: how long one timing of each lasts at least.
    """
    squares = [torch.rand(side, side, device=device, dtype=dtype) for side in SQUARES[device.type]]
    all_of_them = [*found, *((lambda a=square: a @ a, 2 * len(square) ** 3) for square in squares)]
    with torch.no_grad():
        return max(flops / fastest(run, device=device, least_seconds=seconds) for run, flops in all_of_them)


class _Seen(TorchDispatchMode):
    """Notes the operations that torch has a formula of floating-point operations for, and adds these up.

    Torch's ``FlopCounterMode`` does the latter too, but hangs hooks on modules that ``torch.autograd.grad`` with
    respect to their input, as in the search for a worst case, stumbles over.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.found: dict[Any, Operation] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            flops = int(formula(*args, **kwargs, out_val=out))
            self.flops += flops
            key = (func, str(pytree.tree_map_only(Tensor, lambda tensor: tuple(tensor.shape), (args, kwargs))))
            self.found.setdefault(key, (lambda: func(*args, **kwargs), flops))
        return out
