"""The SVI loop, of one seed or several, alone or with other ranks."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import nn

from pyro_avae.compilation.compilers import compiler_missing
from pyro_avae.devices import as_device
from pyro_avae.errors import InputError
from pyro_avae.parameters import trainable
from pyro_avae.randomness import stream_seed
from pyro_avae.runs.checkpoints import Checkpoint
from pyro_avae.runs.kept import remove_later
from pyro_avae.runs.run_folder import Row, RunFolder
from pyro_avae.training.batches import EpochOrder
from pyro_avae.training.interrupt import Interrupted, StopRequest
from pyro_avae.training.member import Member
from pyro_avae.training.non_finite import NonFiniteError
from pyro_avae.training.plan import Plan
from pyro_avae.training.ranks import Ranks
from pyro_avae.training.sources import Resident, Source, as_source
from pyro_avae.training.state import TrainingState
from pyro_avae.training.step import SVIStep

__all__ = ["Trainer"]

log = logging.getLogger(__name__)


class Trainer:
    """The state of one training.

    Args:
        pairs: (model, guide) of each seed.
        data: as :func:`~pyro_avae.training.fit` takes it.
        elbo: any Pyro ELBO.
        plan: how long, how fast.
        seeds: one for each pair.
        device: where to train; None for where the modules are.
        ranks: the processes that share each batch.

    Raises:
        InputError: what cannot be trained, or not together, or not by so many ranks.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[nn.Module, nn.Module]],
        data: Any,
        elbo: ELBO,
        plan: Plan,
        *,
        seeds: Sequence[int],
        device: str | torch.device | None,
        ranks: Ranks,
    ) -> None:
        _check(pairs, elbo)
        self.plan, self.ranks = plan, ranks
        self.device = _move(pairs, device)
        dtype = plan.computes_in.parameters
        if dtype is not None:
            for module in (module for pair in pairs for module in pair):
                module.to(dtype)
        sources = _sources(data, self.device, seeds=seeds, rank=ranks.rank)
        _check_values(pairs[0][0], data, self.device, dtype)
        batch_size = min(plan.batch_size, len(sources[0]))
        if batch_size % ranks.count:
            raise InputError(f"batch_size: expected a multiple of the {ranks.count} devices, got {batch_size}")
        self.members = [
            Member(
                seed,
                *pair,
                source,
                EpochOrder(len(source), batch_size, seed=seed, device=self.device, part=(ranks.rank, ranks.count)),
                {
                    "batch_size": batch_size,
                    "lr": plan.lr,
                    "kl_warmup": plan.kl_warmup,
                    "precision": plan.precision,
                    "seed": seed,
                    "images": len(source),
                },
            )
            for seed, pair, source in zip(seeds, pairs, sources, strict=True)
        ]
        self.svi = SVIStep(
            pairs,
            elbo,
            lr=plan.lr,
            device=self.device,
            seeds=seeds,
            example=lambda: self.members[0].argument(0),
            prepare=sources[0].images if dtype is None else lambda given: sources[0].images(given).to(dtype),
            kl_warmup=plan.kl_warmup,
            autocast=plan.computes_in.autocast,
            ranks=ranks,
        )
        for number, member in enumerate(self.members):
            member.state = TrainingState(member.model, member.guide, self.svi.optimizer_state(number), self.device)
        # Views drawn one pixel after another cannot be traced.
        sequential = any(getattr(guide, "sequential", False) for _, guide in pairs)
        self.compiled = plan.to_compile and not (sequential and plan.compile is None)
        self.compile_seconds = 0.0
        self.step = self.first = self.saved = 0
        self.seconds = 0.0

    def start(self, folders: Sequence[RunFolder | None], found: Sequence[Checkpoint | None]) -> None:
        """Begin, or go on from checkpoints, which are all of one step."""
        for member, checkpoint, folder in zip(self.members, found, folders, strict=True):
            if checkpoint is not None:
                member.check(checkpoint, compile=self.plan.compile)
            member.folder = folder
            if folder is not None:
                folder.read_log()  # refuses a damaged one before anything is changed
        for member, checkpoint in zip(self.members, found, strict=True):
            if checkpoint is not None:
                self._restore(member, checkpoint)
        if self.ranks.count > 1:
            self._agree()
        for member in self.members:
            member.begin_log(self.step)
            if member.folder is not None:
                remove_later(member.folder.kept, self.step)

    def compile(self, say: Callable[[str], None]) -> None:
        """Compile the step where it is to be; a program that is invalid is told as that, by Pyro's own checks."""
        if not self.compiled or self.step >= self.plan.steps:
            return
        missing = compiler_missing(self.device)
        if missing is not None:
            log.warning("%s; steps are not compiled", missing)
            return
        say("compiling the step, which takes seconds to minutes (--no-compile trains without)")
        with pyro.validation_enabled(True):
            self.compile_seconds = self.svi.compile(*(member.argument(self.step) for member in self.members))
        say(f"compiled in {self.compile_seconds:.1f} s")

    def run(self, request: StopRequest) -> Iterator[list[Row] | None]:
        """Train up to the plan's steps; yields after each step, a row for each seed where it is a logged one."""
        began, before = time.monotonic(), self.seconds
        while self.step < self.plan.steps:
            done = self.step + 1
            logged = self.plan.is_logged(done)
            with pyro.validation_enabled(self.step == self.first):
                self.svi(*(m.argument(self.step) for m in self.members), number=done, with_entropy=logged)
            self.step = done
            self.seconds = before + time.monotonic() - began
            rows = self._rows() if logged else None
            for member, row in zip(self.members, rows or (), strict=False):
                member.write(row)
            if self.plan.is_kept(done):
                self._keep()  # first: what is resumed begins after the step of its checkpoint
            if self.plan.is_saved(done):
                self._save()
            yield rows
            signum = self._stopped(request, logged)
            if signum is not None and done < self.plan.steps:
                self._save()
                raise Interrupted(signum, done)

    def close(self) -> None:
        """Training has ended, well or not."""
        self.svi.release()
        for member in self.members:
            member.log.close()
            member.source.close()

    def _rows(self) -> list[Row]:
        warmth = {"kl_weight": self.svi.kl_weight(self.step)} if self.plan.kl_warmup else {}
        rows = self.svi.rows()
        return [
            {"step": self.step, **row, **warmth, **member.learned()}
            for member, row in zip(self.members, rows, strict=True)
        ]

    def _stopped(self, request: StopRequest, logged: bool) -> int | None:
        """The signal that came, to whichever rank; several ranks ask one another at logged steps."""
        if self.ranks.count == 1:
            return request.signum
        return (int(self.ranks.most(float(request.signum or 0))) or None) if logged else None

    def _save(self) -> None:
        if self.saved != self.step:
            self._write(lambda member: member.save(self.step, seconds=self.seconds, compiled=self.compiled))
            self.saved = self.step

    def _keep(self) -> None:
        self._write(lambda member: member.keep(self.step))

    def _write(self, write: Callable[[Member], None]) -> None:
        if self.ranks.count == 1 and self.members[0].folder is None:
            return
        self.svi.rows()  # refuses a loss that is not finite
        for member in self.members:
            try:
                write(member)
            except FloatingPointError as error:
                raise NonFiniteError(f"step {self.step}: {error}") from None

    def _restore(self, member: Member, found: Checkpoint) -> None:
        same_device = found.facts.get("device") == self.device.type
        member.state.restore(found.tensors, same_device=same_device)
        if not same_device:
            # The other device's generators cannot go on here; the step makes the numbers new ones.
            torch.manual_seed(stream_seed(member.seed, "noise", found.step))
        self.compiled = bool(found.facts.get("compiled", False))
        self.step = self.first = self.saved = found.step
        self.seconds = float(found.facts.get("seconds", 0.0))

    def _agree(self) -> None:
        """Have every rank begin where the first one does, with its parameters."""
        mine = [{k: v.cpu() for k, v in member.state.tensors().items()} for member in self.members]
        state, self.step, self.seconds, self.compiled = self.ranks.from_first(
            (mine, self.step, self.seconds, self.compiled)
        )
        self.first = self.saved = self.step
        for member, tensors in zip(self.members, state, strict=True):
            member.state.restore(tensors, same_device=True)


def _check(pairs: Sequence[tuple[nn.Module, nn.Module]], elbo: ELBO) -> None:
    for pair in pairs:
        for name, module in zip(("model", "guide"), pair, strict=True):
            if not isinstance(module, nn.Module):
                raise InputError(f"{name}: expected a torch.nn.Module, got {type(module).__name__}")
    if not isinstance(elbo, ELBO):
        raise InputError(
            f"elbo: expected a Pyro ELBO such as AVAE_ELBO(), got {type(elbo).__name__}; give it before it"
            " is called on (model, guide)"
        )
    for pair in pairs:
        if not trainable(*pair):
            raise InputError("model and guide: expected parameters to train, found none that requires grad")


def _check_values(model: nn.Module, data: Any, device: torch.device, dtype: torch.dtype | None) -> None:
    """Once, before the first step: images of a data set are in [0, 1], but a tensor may hold anything."""
    check = getattr(model, "check_data", None)
    if isinstance(data, torch.Tensor) and check is not None:
        check(data.detach().to(device, dtype))


def _move(pairs: Sequence[tuple[nn.Module, nn.Module]], device: str | torch.device | None) -> torch.device:
    """Move all to the device, by default that of the first parameter."""
    if device is None:
        return next(iter(trainable(*pairs[0]).values())).device
    place = as_device(device)
    for pair in pairs:
        for module in pair:
            module.to(place)
    return place


def _sources(data: Any, device: torch.device, *, seeds: Sequence[int], rank: int) -> list[Source]:
    """A source for each seed; images on the device are there once."""
    first = as_source(data, device, seed=seeds[0], rank=rank)
    if isinstance(first, Resident):
        return [first] * len(seeds)
    return [first, *(as_source(data, device, seed=seed, rank=rank) for seed in seeds[1:])]
