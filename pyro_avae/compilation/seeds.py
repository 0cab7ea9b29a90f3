"""Several independent programs of one shape in one step: their tensors stacked, the graph of one mapped over them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from pyro_avae.compilation.base_noise import BaseNoise, Noise, NoiseSpec
from pyro_avae.compilation.check import check_trace
from pyro_avae.compilation.program import Outputs, Program, sum_of
from pyro_avae.compilation.step import SVIProgram
from pyro_avae.compilation.trace import TracedProgram, trace_program
from pyro_avae.errors import InputError

__all__ = ["SeedsProgram", "StackedNoise", "StackedProgram"]


class StackedProgram:
    """The tensors of K programs, each with a dimension K in front; the programs' own are views of them from then on.

    Args:
        programs: of one structure, with parameters of their own.

    Raises:
        InputError: parameters of other names or shapes, or one that two programs share.

    Attributes:
        programs: the K programs.
        parameters: stacked, what an optimiser that works element by element (Adam, SGD) trains: each seed as alone.
        buffers: stacked.
    """

    def __init__(self, programs: Sequence[Program]) -> None:
        self.programs = list(programs)
        first = self.programs[0]
        self.module, self.autocast = first.module, first.autocast
        shapes = [{name: tensor.shape for name, tensor in program.parameters.items()} for program in self.programs]
        if any(other != shapes[0] for other in shapes):
            raise InputError("seeds: expected pairs of one structure, got parameters of other names or shapes")
        if len({id(p) for program in self.programs for p in program.parameters.values()}) < len(programs) * len(
            shapes[0]
        ):
            raise InputError("seeds: expected a pair for each seed, got two that share parameters")
        self.parameters = {
            name: nn.Parameter(_stacked([program.parameters[name] for program in self.programs]))
            for name in first.parameters
        }
        self.buffers = [_stacked(list(each)) for each in zip(*(p.buffers for p in self.programs), strict=True)]

    @property
    def names(self) -> list[str]:
        """The names of the bound's terms."""
        return self.programs[0].names

    @property
    def entropy_names(self) -> list[str]:
        """The names of the entropies that it leaves out."""
        return self.programs[0].entropy_names

    def release(self) -> None:
        """Give each program tensors of its own again."""
        for program in self.programs:
            for tensor in (*program.parameters.values(), *program.buffers):
                tensor.data = tensor.data.clone()


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """The tensors in one, and each of them a view of its part."""
    together = torch.stack([tensor.detach() for tensor in tensors])
    for tensor, part in zip(tensors, together.unbind(), strict=True):
        tensor.data = part
    return together


class StackedNoise:
    """The noise of several sources, stacked.

    Args:
        sources: one for each seed.
    """

    def __init__(self, sources: Sequence[Noise]) -> None:
        self.sources = sources

    def start(self, step: int) -> None:
        """Begin the draws of step 1, 2, ... of every source."""
        for source in self.sources:
            source.start(step)

    def draw(self, spec: NoiseSpec) -> Tensor:
        """The next noise of this step, ``(K, ...)``."""
        return self.fill(spec, torch.empty(spec.shape, dtype=spec.dtype, device=spec.device))

    def fill(self, spec: NoiseSpec, into: Tensor) -> Tensor:
        """:meth:`draw` into a tensor that is there."""
        one = NoiseSpec(spec.kind, spec.shape[1:], spec.dtype, spec.device)
        for source, part in zip(self.sources, into.unbind(), strict=True):
            source.fill(one, part)
        return into


class SeedsProgram(SVIProgram):
    """:class:`~pyro_avae.compilation.step.SVIProgram` for several programs: arguments and losses are stacked.

    Each seed's numbers are those of its own step, up to rounding: nothing is summed over seeds, and clipping has a norm
    for each.

    Args:
        stacked: the programs.
        optimizer: of ``stacked.parameters``; one that treats every element by itself.
        noise: of each program.
        max_grad_norm: clip each program's gradients to this norm.
        compiled: trace, map and compile; False runs one program after the other.
    """

    def __init__(
        self,
        stacked: StackedProgram,
        optimizer: torch.optim.Optimizer,
        noise: Sequence[Noise],
        *,
        max_grad_norm: float | None = None,
        compiled: bool = True,
    ) -> None:
        self.stacked, self._sources = stacked, noise
        super().__init__(
            stacked,  # type: ignore[arg-type]
            optimizer,
            StackedNoise(noise),
            max_grad_norm=max_grad_norm,
            compiled=compiled,
        )

    def try_out(self, *args: Any) -> None:
        for number, (program, source) in enumerate(zip(self.stacked.programs, self._sources, strict=True)):
            SVIProgram(program, self.optimizer, source).try_out(*_of(args, number))

    def _eager(self, args: Sequence[Any]) -> Tensor:
        losses, terms, sums = [], [], []
        for number, (program, source) in enumerate(zip(self.stacked.programs, self._sources, strict=True)):
            for parameter in program.parameters.values():
                parameter.grad = None
            with BaseNoise(source.draw):
                loss, found = program.loss(*_of(args, number))
            loss.backward()
            losses.append(loss.detach())
            sums.append(sum_of((p.grad for p in program.parameters.values()), like=losses[-1]))
            terms.append(found)
        for name, parameter in self.stacked.parameters.items():
            each = [program.parameters[name].grad for program in self.stacked.programs]
            parameter.grad = None if any(g is None for g in each) else torch.stack(each)  # type: ignore[arg-type]
        self._keep(
            [torch.stack(each) for each in zip(*terms, strict=True)], self.stacked.names, self.stacked.entropy_names
        )
        self.gradient_sum = torch.stack(sums)
        return torch.stack(losses)

    def _clip(self, max_norm: float) -> None:
        gradients = [p.grad for p in self.stacked.parameters.values() if p.grad is not None]
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).norm(dim=0)
        factors = (max_norm / (norms + 1e-6)).clamp(max=1)  # as torch.nn.utils.clip_grad_norm_
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1)))

    def _new_trace(self, args: Sequence[Any]) -> TracedProgram:
        single = trace_program(self.stacked.programs[0], _of(args, 0))
        constants = [_for_all(constant, self.stacked.programs) for constant in single.constants]
        count = len(self.stacked.programs)
        specs = [NoiseSpec(spec.kind, (count, *spec.shape), spec.dtype, spec.device) for spec in single.specs]
        noise = [torch.zeros(spec.shape, dtype=spec.dtype, device=spec.device) for spec in specs]
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        before = [*(p.detach() for p in self.stacked.parameters.values()), *self.stacked.buffers, *noise]
        dims = [*[0] * len(before), *(0 if own else None for own, _ in constants), *[0] * len(tensors)]
        structure: list[Any] = []

        def flat(*inputs: Tensor) -> list[Tensor]:
            leaves, spec = pytree.tree_flatten(single.graph(*inputs))
            structure[:] = [spec, [leaf is not None for leaf in leaves]]
            return [leaf for leaf in leaves if leaf is not None]  # vmap returns tensors alone

        def mapped(*inputs: Tensor) -> Any:
            found = iter(vmap(flat, in_dims=tuple(dims))(*inputs))
            spec, there = structure
            return pytree.tree_unflatten([next(found) if is_there else None for is_there in there], spec)

        values = [value for _, value in constants]
        with torch.no_grad():
            graph = make_fx(mapped, tracing_mode="fake")(*before, *values, *tensors)
        return TracedProgram(
            graph,
            specs=specs,
            constants=values,
            changed=single.changed,
            names=single.names,
            entropy_names=single.entropy_names,
        )

    def _check(self, traced: TracedProgram, args: Sequence[Any]) -> None:
        parameters, buffers = self.stacked.parameters.values(), self.stacked.buffers
        for number, program in enumerate(self.stacked.programs):

            def one(
                values: Sequence[Tensor], left: Sequence[Tensor], noise: Sequence[Tensor], *given: Any, n: int = number
            ) -> Outputs:
                """The stacked trace with this program's numbers in its place."""
                found = traced(
                    [_put(whole, n, value) for whole, value in zip(parameters, values, strict=True)],
                    [_put(whole, n, value) for whole, value in zip(buffers, left, strict=True)],
                    [value.expand(len(self.stacked.programs), *value.shape) for value in noise],
                    *(_put(w, n, v) if isinstance(w, Tensor) else v for w, v in zip(args, given, strict=True)),
                )
                return pytree.tree_map(lambda leaf: None if leaf is None else leaf[n], found)

            specs = [NoiseSpec(spec.kind, spec.shape[1:], spec.dtype, spec.device) for spec in traced.specs]
            check_trace(_Seen(one, specs, traced), program, _of(args, number))


class _Seen:
    """One program's part of a stacked trace, as a trace of its own."""

    def __init__(self, run: Any, specs: Sequence[NoiseSpec], traced: TracedProgram) -> None:
        self._run, self.specs = run, specs
        self.changed, self.names, self.entropy_names = traced.changed, traced.names, traced.entropy_names

    def __call__(
        self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], noise: Sequence[Tensor], *args: Any
    ) -> Outputs:
        return self._run(parameters, buffers, noise, *args)


def _of(args: Sequence[Any], number: int) -> list[Any]:
    return [arg[number] if isinstance(arg, Tensor) else arg for arg in args]


def _put(whole: Tensor, number: int, value: Tensor) -> Tensor:
    changed = whole.detach().clone()
    changed[number] = value
    return changed


def _for_all(constant: Tensor, programs: Sequence[Program]) -> tuple[bool, Tensor]:
    """A tensor that the first program's trace reads from outside: whether each program has its own, and the tensors.

    What is not trained is among them: frozen networks, which each pair may have others of. What none of the modules
    has (the images, a weight that the ELBO was given) is the same for all.
    """
    named = [dict(program.module.named_parameters(remove_duplicate=False)) for program in programs]
    name = next((n for n, tensor in named[0].items() if _is_same(tensor, constant)), None)
    if name is None:
        return False, constant
    return True, torch.stack([each[name].detach() for each in named])


def _is_same(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()
