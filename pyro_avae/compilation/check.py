"""Whether a traced program computes what the program computes."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_avae.compilation.base_noise import NoiseSource, NoiseSpec
from pyro_avae.compilation.program import Outputs, Program
from pyro_avae.compilation.trace import run_with_noise
from pyro_avae.errors import InputError

__all__ = ["Traced", "check_trace"]

#: What two orders of summation may differ by, as a part of the whole gradient's norm, by the coarsest dtype involved.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}

#: Draws of data and noise, of which a trace has to agree on one; a wrong trace agrees on none. A worst case moves by
#: the sign of a gradient, and where rounding flips that of one pixel, gradients of a right trace differ by more than
#: rounding: for SE on the paper's network on about one draw in six.
_DRAWS = 5


class Traced(Protocol):
    """A traced program, or what stands for one."""

    @property
    def specs(self) -> Sequence[NoiseSpec]:
        """The noise that it wants."""
        ...

    @property
    def changed(self) -> Sequence[int]:
        """Places of the buffers that it returns."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """Names of the terms."""
        ...

    @property
    def entropy_names(self) -> Sequence[str]:
        """Names of the entropies behind them."""
        ...

    def __call__(
        self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], noise: Sequence[Tensor], *args: Any
    ) -> Outputs:
        """Run it."""
        ...


def check_trace(traced: Traced, program: Program, args: Sequence[Any], *, seed: int = 1) -> None:
    """Compare loss, terms, every gradient and every buffer with the program's own, on other data and noise.

    The other data are the arguments' numbers, shuffled: a number that the trace took for a constant is found out, and
    values stay within what the program takes.

    Raises:
        InputError: they differ, on each of several draws.
    """
    for draw in range(_DRAWS):
        try:
            _check_once(traced, program, args, seed=seed + draw)
        except InputError:
            if draw == _DRAWS - 1:
                raise
        else:
            return


def _check_once(traced: Traced, program: Program, args: Sequence[Any], *, seed: int) -> None:
    source = NoiseSource(seed)
    noise = [source.draw(spec) for spec in traced.specs]
    generator = torch.Generator().manual_seed(seed)
    fresh = [_shuffled(arg, generator) if isinstance(arg, Tensor) else arg for arg in args]
    parameters = [parameter.detach() for parameter in program.parameters.values()]
    expected = run_with_noise(program, parameters, program.buffers, noise, *fresh)
    found = traced(parameters, program.buffers, noise, *fresh)
    _compare(found, expected, traced, program)


def _shuffled(values: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(values.numel(), generator=generator).to(values.device)
    return values.flatten()[order].reshape(values.shape)


def _compare(found: Outputs, expected: Outputs, traced: Traced, program: Program) -> None:
    dtypes = {tensor.dtype for tensor in program.parameters.values()} | {program.autocast}
    tolerance = max(_TOLERANCE.get(dtype, 1e-3) for dtype in dtypes if dtype is not None)
    scale = torch.stack([g.double().norm() for g in expected.gradients if g is not None] or [torch.ones(())]).norm()
    names = [*traced.names, *traced.entropy_names]
    pairs: list[tuple[str, Tensor | None, Tensor | None, Tensor]] = [
        ("the loss", found.loss, expected.loss, expected.loss.double().abs()),
        *(
            (f"the term {name!r}", one, other, torch.maximum(other.double().abs(), expected.loss.double().abs()))
            for name, one, other in zip(names, found.terms, expected.terms, strict=True)
        ),
        *(
            (f"the gradient of {name}", one, other, scale)
            for name, one, other in zip(program.parameters, found.gradients, expected.gradients, strict=True)
        ),
    ]
    left = dict(zip(traced.changed, found.buffers, strict=True))
    for place, (before, after) in enumerate(zip(program.buffers, expected.buffers, strict=True)):
        pairs.append((f"buffer {place}", left.get(place, before), after, after.double().norm()))
    for what, one, other, size in pairs:
        if not _same(one, other, tolerance * size):
            raise InputError(
                f"compile_step: {what} differs between the traced and the eager step; something in the program changes"
                " from call to call (a counter, a random number from elsewhere); run it eagerly, compile=False"
            )


def _same(one: Tensor | None, other: Tensor | None, tolerance: Tensor) -> bool:
    if one is None or other is None:
        return one is other
    if not bool(other.isfinite().all()):
        return bool((one.isfinite() == other.isfinite()).all())
    return bool((one.double() - other.double()).norm() <= tolerance)
