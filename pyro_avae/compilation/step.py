"""A step of stochastic variational inference, compiled."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_avae.compilation.base_noise import BaseNoise, Noise, NoiseSource
from pyro_avae.compilation.check import check_trace
from pyro_avae.compilation.compilers import compiler_missing
from pyro_avae.compilation.cuda_graph import CudaRecorder, RecordedStep, Recorder, can_be_recorded
from pyro_avae.compilation.program import Outputs, Program, sum_of
from pyro_avae.compilation.trace import TracedProgram, trace_program
from pyro_avae.errors import InputError

__all__ = ["SVIProgram", "compile_step"]

log = logging.getLogger(__name__)

#: Shapes that come this often are traced too; rarer ones, an epoch's last batch say, are run eagerly.
_WORTH_A_TRACE = 3


class SVIProgram:
    """Loss and gradients of an ELBO, step after step, eagerly or compiled: made by :func:`compile_step`.

    Calling it does one step. Its parts can be called in its place where something has to happen between them, such as
    an average over ranks: :meth:`gradients`, then :meth:`update`.

    Args:
        program: loss and gradients.
        optimizer: of the program's parameters.
        noise: where the steps' random numbers come from.
        max_grad_norm: clip the gradients to this norm.
        compiled: trace and compile; False for eager steps with the same noise.

    Attributes:
        terms: the terms of the last step's bound by site, 0-d tensors; empty for an ELBO that does not tell them.
        entropy: the entropies that the bound leaves out, where the ELBO was asked for them.
        gradient_sum: the sum of all elements of the last step's gradients, before clipping; not finite if one is not.
        number: how many steps were done. Step n draws the noise of the seed and n, so that a resumed run sets it.
        seconds: how long tracing, checking and compiling took.
    """

    def __init__(
        self,
        program: Program,
        optimizer: torch.optim.Optimizer,
        noise: Noise,
        *,
        max_grad_norm: float | None = None,
        compiled: bool = True,
    ) -> None:
        self.program, self.optimizer, self._noise = program, optimizer, noise
        self.max_grad_norm, self.compiled = max_grad_norm, compiled
        self.terms: Mapping[str, Tensor] = {}
        self.entropy: Mapping[str, Tensor] = {}
        self.gradient_sum = torch.zeros(())
        self.number, self.seconds = 0, 0.0
        self._parts = list(program.module.modules())
        self._recorder: Recorder | None = None
        self._recorded: dict[Any, RecordedStep] = {}
        self._traced: dict[Any, TracedProgram] = {}
        self._seen: dict[Any, int] = {}

    def __call__(self, *args: Any) -> Tensor:
        """One step: loss, gradients, clipping, optimiser. Returns the loss, without a graph, waiting for no device."""
        traced = self._begin(args)
        if traced is not None and self._recorder is not None:
            return self._rerun(traced, args, self._recorder)
        loss = self._eager(args) if traced is None else self._replayed(traced, args)
        self.update()
        return loss

    def gradients(self, *args: Any) -> Tensor:
        """The first half: the loss, and gradients in the parameters' ``.grad``."""
        traced = self._begin(args)
        return self._eager(args) if traced is None else self._replayed(traced, args)

    def update(self) -> None:
        """The second half: clipping, and the optimiser's step."""
        if self.max_grad_norm is not None:
            self._clip(self.max_grad_norm)
        self.optimizer.step()

    def _clip(self, max_norm: float) -> None:
        nn.utils.clip_grad_norm_(self.program.parameters.values(), max_norm)

    def try_out(self, *args: Any) -> None:
        """Run model, guide and ELBO once, with Pyro's validation as it is set; nothing comes of it but errors."""
        self._noise.start(self.number + 1)
        buffers = [buffer.clone() for buffer in self.program.buffers]
        with BaseNoise(self._noise.draw):
            self.program.loss(*args)
        with torch.no_grad():
            for buffer, before in zip(self.program.buffers, buffers, strict=True):
                buffer.copy_(before)

    def trace(self, *args: Any) -> TracedProgram:
        """Trace, check and compile for arguments of this shape; what steps do by themselves for what comes often.

        Raises:
            InputError: it cannot be traced, or the trace computes something else.
        """
        began = time.monotonic()
        traced = self._new_trace(args)
        self._check(traced, args)
        traced.compile()
        self._check(traced, args)
        self._traced[self._key(args)] = traced
        self.seconds += time.monotonic() - began
        return traced

    def record_with(self, recorder: Recorder) -> None:
        """Have whole steps recorded, on CUDA by :class:`~pyro_avae.compilation.cuda_graph.CudaRecorder`."""
        self._recorder = recorder

    def _new_trace(self, args: Sequence[Any]) -> TracedProgram:
        return trace_program(self.program, args)

    def _check(self, traced: TracedProgram, args: Sequence[Any]) -> None:
        check_trace(traced, self.program, args)

    def _begin(self, args: Sequence[Any]) -> TracedProgram | None:
        """Count the step and begin its noise; returns the trace for these arguments, None where it is to be eager."""
        self.number += 1
        self._noise.start(self.number)
        return self._traced_for(args) if self.compiled else None

    def _traced_for(self, args: Sequence[Any]) -> TracedProgram | None:
        key = self._key(args)
        if key not in self._traced:
            self._seen[key] = self._seen.get(key, 0) + 1
            if self._seen[key] < _WORTH_A_TRACE:
                return None
            self.trace(*args)
        return self._traced[key]

    def _key(self, args: Sequence[Any]) -> Any:
        """What a trace is made for: shapes, and the modes of the modules' parts (training or eval)."""
        shapes = tuple((arg.shape, arg.dtype, arg.device) if isinstance(arg, Tensor) else arg for arg in args)
        return shapes, tuple([part.training for part in self._parts])

    def _eager(self, args: Sequence[Any]) -> Tensor:
        self.optimizer.zero_grad()
        with BaseNoise(self._noise.draw):
            loss, terms = self.program.loss(*args)
        self._keep(terms, self.program.names, self.program.entropy_names)
        loss.backward()
        loss = loss.detach()
        self.gradient_sum = sum_of((p.grad for p in self.program.parameters.values()), like=loss)
        return loss

    def _rerun(self, traced: TracedProgram, args: Sequence[Any], recorder: Recorder) -> Tensor:
        key = self._key(args)
        if key not in self._recorded:

            def body(noise: Sequence[Tensor], args: Sequence[Any]) -> list[Tensor]:
                output = self._computed(traced, noise, args)
                self.update()
                return [output.loss, output.gradient_sum, *output.terms]

            self._recorded[key] = RecordedStep(
                body,
                args,
                specs=traced.specs,
                state=[*self.program.parameters.values(), *self.program.buffers],
                optimizer=self.optimizer,
                recorder=recorder,
            )
        loss, self.gradient_sum, *terms = self._recorded[key](self._noise, args)
        self._keep(terms, traced.names, traced.entropy_names)
        return loss

    def _replayed(self, traced: TracedProgram, args: Sequence[Any]) -> Tensor:
        output = self._computed(traced, (self._noise.draw(spec) for spec in traced.specs), args)
        self._keep(output.terms, traced.names, traced.entropy_names)
        self.gradient_sum = output.gradient_sum
        return output.loss

    def _computed(self, traced: TracedProgram, noise: Iterable[Tensor], args: Sequence[Any]) -> Outputs:
        """Run the trace, and put gradients and buffers where they belong."""
        parameters, buffers = list(self.program.parameters.values()), self.program.buffers
        self.optimizer.zero_grad()  # the last step's gradients are not to lie beside the new ones
        output = traced(parameters, buffers, noise, *args)
        for parameter, gradient in zip(parameters, output.gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for place, left in zip(traced.changed, output.buffers, strict=True):
                buffers[place].copy_(left)
        return output

    def _keep(self, terms: Sequence[Tensor], names: Sequence[str], entropy_names: Sequence[str]) -> None:
        self.terms = dict(zip(names, terms, strict=False))
        self.entropy = dict(zip(entropy_names, terms[len(names) :], strict=True))


def compile_step(
    elbo_module: ELBOModule,
    optimizer: torch.optim.Optimizer,
    *example: Any,
    prepare: Callable[..., Any] | None = None,
    seed: int = 0,
    mean: bool = False,
    max_grad_norm: float | None = None,
    autocast: torch.dtype | None = None,
    compile: bool = True,
) -> SVIProgram:
    r"""A step of SVI at the cost of its tensor operations, for any Pyro model, guide and ELBO.

    Loss and gradients are traced once, through Pyro's handlers, checked against the eager ELBO on other data (value,
    terms and every gradient), and compiled by torch's inductor. Standard noise is drawn outside, by the seed and the
    step's number, and every random number is a function of it: compiled and eager steps agree up to rounding.

    ::

        elbo = AVAE_ELBO()(model, guide)
        step = compile_step(elbo, torch.optim.Adam(elbo.parameters()), x)
        for x in batches:
            loss = step(x)  # summed over the rows, a tensor

    Tracing changes no parameter, buffer or random state. Arguments of another shape are run eagerly and, if they come
    again and again, traced anew; so is a change between training and eval mode. What is not seen by a trace is a
    change of a plain Python number that the program reads. Without a compiler for the device the step is eager, and a
    line of the log says so.

    Args:
        elbo_module: ``elbo(model, guide)``. Model and guide hold their parameters themselves (modules, PyroModules);
            tensors of ``pyro.param`` statements are in Pyro's global store and cannot be traced.
        optimizer: of the parameters of both. On CUDA, one with ``capturable=True`` has the whole step, its own part
            included, recorded in one CUDA graph.
        example: arguments of the step, as they will come.
        prepare: what makes the ELBO's arguments of the step's, within the step: a batch of its indices, say, with the
            augmentation that it draws.
        seed: of the noise.
        mean: divide the loss by the number of rows of the ELBO's first argument; Pyro's is their sum.
        max_grad_norm: clip the gradients to this norm.
        autocast: ``torch.bfloat16`` to compute in it under ``torch.autocast``.
        compile: False for an eager step with the same noise.

    Returns:
        The step; called with arguments like the example, it does one step and returns the loss.

    Raises:
        InputError: not what ``elbo(model, guide)`` returns, or a program that cannot be traced: a look at a number
            (``.item()``, an ``if`` on a tensor, enumeration of a shape that depends on data), a gamma or Poisson draw.
            The site or line is named.

    Example:
        >>> from pyro_avae import AVAE_ELBO
        >>> from pyro_avae.guides import AVAEGuide, LinearEncoder
        >>> from pyro_avae.models import ExtendedVAE
        >>> _ = torch.manual_seed(0)
        >>> model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2, rho=0.9, obs_variance=0.5)
        >>> elbo = AVAE_ELBO()(model, AVAEGuide(LinearEncoder(5, 2), model))
        >>> step = compile_step(elbo, torch.optim.Adam(elbo.parameters()), torch.zeros(3, 5), compile=False)
        >>> step(torch.zeros(3, 5)).shape, sorted(step.terms)
        (torch.Size([]), ['x', 'z', 'z_aux'])
    """
    if not isinstance(elbo_module, ELBOModule):
        raise InputError(f"elbo_module: expected what elbo(model, guide) returns, got {type(elbo_module).__name__}")
    program = Program(elbo_module, prepare=prepare, mean=mean, autocast=autocast)
    step = SVIProgram(program, optimizer, NoiseSource(seed), max_grad_norm=max_grad_norm, compiled=compile)
    if not program.parameters:
        raise InputError("elbo_module: expected parameters to train, found none that requires grad")
    if compile:
        device = next(iter(program.parameters.values())).device
        missing = compiler_missing(device)
        if missing is not None:
            log.warning("%s; steps are not compiled", missing)
            step.compiled = False
        else:
            step.trace(*example)
            if can_be_recorded(optimizer, device):
                step.record_with(CudaRecorder())
    return step
