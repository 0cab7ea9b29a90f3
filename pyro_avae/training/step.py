"""One step of SVI, of one seed or several, and what it tells of itself without making the device wait."""

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_avae.compilation.base_noise import Noise, NoiseSource
from pyro_avae.compilation.cuda_graph import CudaRecorder, can_be_recorded
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.rank_noise import RankNoise
from pyro_avae.compilation.seeds import SeedsProgram, StackedProgram
from pyro_avae.compilation.step import SVIProgram
from pyro_avae.compilation.trace import noise_of
from pyro_avae.errors import InputError
from pyro_avae.training.non_finite import NonFiniteError, first_site, gradient_of
from pyro_avae.training.optimizer_state import OptimizerState
from pyro_avae.training.ranks import OneRank, Ranks

__all__ = ["SVIStep"]

Pair = tuple[nn.Module, nn.Module]


class SVIStep:
    """Calling it on a batch for each seed does one step: loss, gradients, optimiser.

    The loss of a Pyro ELBO is summed over the batch; it is divided by the number of images in the program, once, and
    gradients are averaged over ranks, which have equal parts of a batch. The terms of the bound come with the loss,
    where the ELBO has ``evaluate``: nothing is computed twice, and they sum to minus the loss.

    A loss or gradient that is not finite ends the step before it changes a parameter. On a GPU, which nobody waits for,
    it is noted there with its step and terms, and raised as soon as the note has arrived, a few steps later.

    Args:
        pairs: (model, guide) of each seed, Pyro programs that are modules. Several are stacked, see :meth:`release`.
        elbo: any Pyro ELBO. It is copied, not changed.
        lr: Adam's learning rate.
        device: where the modules are.
        seeds: of each pair's noise; that of a step depends on it and on the step's number alone.
        example: makes what a step is called with, for one seed; asked where there are several ranks.
        prepare: makes the images of that; see :func:`~pyro_avae.compilation.compile_step`.
        kl_warmup: steps over which the weight of the KL terms rises from 0 to the ELBO's own.
        autocast: dtype to compute in, under ``torch.autocast``.
        ranks: the processes that share each batch.

    Raises:
        InputError: a warm-up of an ELBO whose KL terms cannot be weighted; pairs that cannot be stacked; noise that
            cannot be shared out to ranks.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        elbo: ELBO,
        *,
        lr: float,
        device: torch.device,
        seeds: Sequence[int],
        example: Callable[[], Tensor],
        prepare: Callable[[Tensor], Tensor] | None = None,
        kl_warmup: int = 0,
        autocast: torch.dtype | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        # Any: terms are reported where an ELBO has them, and Pyro's own have none.
        self._elbo: Any = copy.copy(elbo)
        self._kl_warmup = kl_warmup
        self._ranks = ranks or OneRank()
        if kl_warmup:
            if not hasattr(self._elbo, "kl_weight"):
                raise InputError(
                    f"kl_warmup: expected an ELBO with kl_weight, such as AVAE_ELBO, got {type(elbo).__name__}"
                )
            self._final_kl_weight = float(self._elbo.kl_weight)
            # A tensor, changed in place: no step has to be built anew, and the device is not waited for.
            self._elbo.kl_weight = torch.zeros((), device=device)
        programs = [Program(self._elbo(*pair), prepare=prepare, mean=True, autocast=autocast) for pair in pairs]
        noise: list[Noise] = [NoiseSource(seed) for seed in seeds]
        if self._ranks.count > 1:
            noise = _shared_out(noise, programs[0], example(), self._ranks)
        self._stacked = StackedProgram(programs) if len(programs) > 1 else None
        self._optimizer = _adam((self._stacked or programs[0]).parameters.values(), lr=lr, device=device)
        self._program = (
            SVIProgram(programs[0], self._optimizer, noise[0], compiled=False)
            if self._stacked is None
            else SeedsProgram(self._stacked, self._optimizer, noise, compiled=False)
        )
        self._noise = noise
        self._running: list[Tensor] | None = None
        self._before: int | None = None
        self._ok = torch.ones(len(pairs), dtype=torch.bool, device=device)
        self._told = torch.ones(len(pairs), dtype=torch.bool, pin_memory=device.type == "cuda")
        self._good_steps = torch.zeros(len(pairs), dtype=torch.int64, device=device)
        self._names: list[str] = []
        self._values = torch.zeros(0, len(pairs), device=device)

    def optimizer_state(self, seed: int) -> OptimizerState:
        """What the optimiser remembers of the pair in that place."""
        return OptimizerState(self._optimizer, None if self._stacked is None else (seed, len(self._ok)))

    def release(self) -> None:
        """Give the modules tensors of their own again, where several were stacked."""
        if self._stacked is not None:
            self._stacked.release()

    def compile(self, *batches: Tensor) -> float:
        """Trace and compile for such batches; returns the seconds that it took.

        Raises:
            InputError: as :func:`~pyro_avae.compilation.compile_step`.
        """
        if self._kl_warmup:
            self._elbo.kl_weight.fill_(self._final_kl_weight)  # with 0 the check would not see the KL terms
        if hasattr(self._elbo, "with_entropy"):
            self._elbo.with_entropy = True  # a trace of its own for logged steps would cost as much again
        x = self._together(batches)
        self._program.compiled = True
        self._program.try_out(x)
        self._program.trace(x)
        if can_be_recorded(self._optimizer, self._ok.device) and self._ranks.count == 1:
            self._program.record_with(CudaRecorder())
        return self._program.seconds

    def __call__(self, *batches: Tensor, number: int = 1, with_entropy: bool = False) -> None:
        """One step, the ``number``-th of training, on a batch for each seed.

        ``with_entropy`` has the next row show the entropies that the bound leaves out. Those change during training
        where the likelihood is learned or has no location-scale form.
        """
        if self._kl_warmup:
            self._elbo.kl_weight.fill_(self.kl_weight(number))
        if hasattr(self._elbo, "with_entropy") and not self._program.compiled:
            self._elbo.with_entropy = with_entropy
        self._program.number = number - 1
        self._before = number - 1 if self._before is None else self._before
        x = self._together(batches)
        if self._ranks.count == 1 and not _is_waited_for(self._ok.device):
            loss = self._program(x)
            self._note(loss, loss + self._program.gradient_sum)
            self._told.copy_(self._ok, non_blocking=True)
            if not self._told.all():
                self._refuse()
            return
        self._note(*self._gradients(x))
        if not self._ok.all():
            self._refuse(x, number)
        self._program.update()

    def kl_weight(self, number: int) -> float:
        """The weight of the KL terms in the ``number``-th step, 1, 2, ... of a training with a warm-up."""
        return self._final_kl_weight * min(1.0, number / self._kl_warmup)

    def rows(self) -> list[dict[str, float]]:
        """The loss and the terms of the last step for each seed, means per image in nats. Here the device is waited
        for, and ranks for each other.

        Raises:
            NonFiniteError: the loss or a gradient was not finite at some step; its number and what it was are named.
        """
        if not self._ok.all():
            self._refuse()
        entropy = {f"{name}_entropy": value.reshape(-1) for name, value in self._program.entropy.items()}
        found = torch.cat([self._values.double(), *(value.double()[None] for value in entropy.values())])
        self._ranks.average([found])
        names = [*self._names, *entropy]
        return [dict(zip(names, column, strict=True)) for column in found.T.tolist()]

    def _refuse(self, x: Tensor | None = None, number: int = 0) -> NoReturn:
        """Say what was not finite: with the step's argument, what a second look at it finds, else from its terms."""
        seed = int(self._ok.int().argmin())
        row = dict(zip(self._names, self._values[:, seed].tolist(), strict=True))
        # A term rather than the loss, which is not finite as soon as a term is not.
        broken = next(((n, v) for n, v in [*list(row.items())[1:], *row.items()] if not math.isfinite(v)), None)
        what = None
        if broken is None:
            what = gradient_of(self._program.program.parameters)
        elif x is not None and self._stacked is None:
            with suppress(Exception):  # a second look that fails must not hide what the first one saw
                what = first_site(self._program.program, self._noise[0], number, x)
        if what is None and broken is not None:
            what = f"the term {broken[0]!r} of the loss is {broken[1]}"
        what = what or "a gradient is not finite"
        step = (self._before or 0) + int(self._good_steps[seed])
        terms = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        raise NonFiniteError(f"step {step}: {what} ({terms}); try a smaller lr")

    def _together(self, batches: Sequence[Tensor]) -> Tensor:
        return batches[0] if self._stacked is None else torch.stack(list(batches))

    def _gradients(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and a number that is not finite where the loss or a gradient is not.

        Gradients and running statistics are then those of all ranks' rows, and so is the number.
        """
        program, several = self._program.program, self._ranks.count > 1
        before = [buffer.clone() for buffer in program.buffers] if several and self._running is None else []
        loss = self._program.gradients(x)
        health = loss + self._program.gradient_sum
        if several:
            if self._running is None:
                self._running = [
                    buffer
                    for buffer, then in zip(program.buffers, before, strict=True)
                    if buffer.is_floating_point() and not torch.equal(buffer, then)
                ]
            gradients = [p.grad for p in program.parameters.values() if p.grad is not None]
            self._ranks.average([*gradients, *self._running, health])
        return loss, health

    def _note(self, loss: Tensor, health: Tensor) -> None:
        """Keep this step's loss and terms, unless an earlier step was not healthy: then keep those.

        ``health`` is not finite for a seed whose loss or gradient is not.
        """
        named = {"loss": loss, **self._program.terms}
        values = torch.stack([value.to(loss.dtype).reshape(-1) for value in named.values()])
        if list(named) == self._names:
            values = torch.where(self._ok, values, self._values)
        self._names, self._values = list(named), values
        self._good_steps += self._ok
        self._ok = self._ok & health.reshape(-1).isfinite()


def _is_waited_for(device: torch.device) -> bool:
    """Whether a number of the device can be looked at without a delay."""
    return device.type == "cpu"


def _adam(parameters: Any, *, lr: float, device: torch.device) -> torch.optim.Adam:
    return torch.optim.Adam(
        parameters,
        lr=lr,
        fused=device.type in ("cpu", "cuda") or None,
        capturable=device.type == "cuda",  # its step count on the device: a CUDA graph may hold the whole step
    )


def _shared_out(noise: Sequence[Noise], program: Program, example: Tensor, ranks: Ranks) -> list[Noise]:
    """This rank's part of each seed's noise."""
    part = noise_of(program, [example])
    whole = noise_of(program, [example.repeat(ranks.count, *[1] * (example.dim() - 1))])
    return [RankNoise(one, ranks.rank, ranks.count, len(example), part=part, whole=whole) for one in noise]
