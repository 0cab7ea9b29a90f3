"""The SVI loop."""

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_avae.compilation.compilers import compiler_missing
from pyro_avae.devices import as_device
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.parameters import trainable
from pyro_avae.randomness import isolated, stream_seed
from pyro_avae.runs.checkpoints import Checkpoint, save_checkpoint
from pyro_avae.runs.run_folder import Row, RunFolder
from pyro_avae.runs.settings import Settings, setting_infos
from pyro_avae.training.batches import EpochOrder, TrainingData, as_source
from pyro_avae.training.interrupt import Interrupted, StopRequest, deferred_signals
from pyro_avae.training.log import TrainingLog
from pyro_avae.training.progress import Reporter, Silent, default_reporter
from pyro_avae.training.state import TrainingState, watched
from pyro_avae.training.step import NonFiniteError, SVIStep

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["FitResult", "fit"]

log = logging.getLogger(__name__)

#: Steps that make up for the time that compiling takes, as a rule.
_WORTH_COMPILING = 5000


@dataclass(frozen=True)
class FitResult:
    """What :func:`fit` gives back.

    Attributes:
        history: the logged steps, ``{"step", "loss", "x", "z", ...}``: means per image of one batch, in nats. The
            terms sum to minus the loss; ``x_aux_entropy`` is no part of it; a learned ``rho`` or ``obs_variance`` is
            there too.
        steps: how many were done in all, those before a resume included.
        seconds: how long they took, compiling apart.
        compile_seconds: how long compiling took, 0 where steps were eager.
    """

    history: list[Row]
    steps: int
    seconds: float
    compile_seconds: float = 0.0


def fit(
    model: nn.Module,
    guide: nn.Module,
    data: "ImageData | Split | TrainingData | Tensor",
    *,
    elbo: ELBO | None = None,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-4,
    kl_warmup: int = 0,
    seed: int = 0,
    compile: bool | None = None,
    device: str | torch.device | None = None,
    out: str | Path | RunFolder | None = None,
    resume: bool = False,
    settings: Settings | None = None,
    checkpoint_every: int = 1000,
    log_every: int = 100,
    progress: bool | Reporter = False,
    callbacks: Sequence[Callable[[Row], None]] = (),
) -> FitResult:
    r"""Train a pair by SVI: Adam on :math:`\frac1B\,` ``elbo(model, guide)(x)``.

    One seed fixes data order, colours and noise (initial parameters are the caller's). The caller's random state,
    Pyro's validation and the modules' training mode are afterwards as before. The first step runs with Pyro's
    validation on, the others without. The device is waited for at logged and saved steps alone.

    With ``out``, training writes checkpoints, ``log.jsonl`` and TensorBoard curves there (see
    :class:`~pyro_avae.runs.RunFolder`), and Ctrl-C or SIGTERM save before they stop it. ``resume=True`` goes on from
    the newest intact checkpoint: on a CPU with the parameters, bit for bit, of a run that was never stopped. Where an
    error ends training before the first checkpoint, a folder that was new or empty is so again.

    Args:
        model: a Pyro model that is a module.
        guide: a Pyro guide that is a module; parameters that both have are trained once.
        data: an ``ImageData`` (its training split is used), a ``Split``, or a float tensor ``(N, *event)``.
        elbo: any Pyro ELBO; :class:`~pyro_avae.AVAE_ELBO` by default.
        steps: how many gradient steps in all, those of a resumed run included.
        batch_size: images in a step; all of them where there are fewer.
        lr: Adam's learning rate.
        kl_warmup: steps over which the weight of all KL terms rises linearly from 0 to that of ``elbo``, which has to
            have ``kl_weight``. It keeps latent dimensions from being switched off before the decoder has learned to
            use them. Rows show the loss as it is weighted, and the weight.
        seed: the run's seed. The noise of a step depends on it and the step's number alone.
        compile: trace and compile the step (:func:`~pyro_avae.compilation.compile_step`; hooks of parameters are then
            not called). By default where ``steps`` are at least 5,000, which makes up for the time that it takes. A
            resumed run goes on as it began.
        device: where to train; the modules are moved there. By default where the model is.
        out: a new or empty folder.
        resume: go on with the run in ``out``.
        settings: written into ``out`` as ``config.json``, which is what :func:`pyro_avae.load` needs.
        checkpoint_every: steps between checkpoints; one is made at the end in any case. The last two are kept.
        log_every: steps between logged ones; the first and the last are logged in any case.
        progress: show a bar (a few lines where stderr is no terminal), or a reporter of one's own.
        callbacks: each called with every logged row.

    Raises:
        InputError: arguments out of range, modules without parameters, a folder that is not empty, a checkpoint of
            another run, or a program that cannot be compiled.
        NonFiniteError: the loss stopped being finite; the step and the first such term are named.
        Interrupted: a signal came; a ``KeyboardInterrupt``.
        OSError: a checkpoint cannot be written; earlier ones are intact.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> model, guide = VAE(nn.Linear(1, 4), latent_dim=1), AmortizedGuide(LinearEncoder(4, 1))
        >>> result = fit(model, guide, torch.randn(50, 1) * torch.ones(4), steps=300, lr=0.02)
        >>> result.history[-1]["loss"] < result.history[0]["loss"]
        True
    """
    for name, value in (
        ("steps", steps),
        ("batch_size", batch_size),
        ("lr", lr),
        ("kl_warmup", kl_warmup),
        ("seed", seed),
    ):
        setting_infos()[name].kind.check(name, value)
    for name, value in (("checkpoint_every", checkpoint_every), ("log_every", log_every)):
        setting_infos()["steps"].kind.check(name, value)
    folder = RunFolder(out) if isinstance(out, str | Path) else out
    if resume and folder is None:
        raise InputError("resume: expected out, the folder of the run to go on with")
    loop = _Loop(
        model,
        guide,
        data,
        elbo or AVAE_ELBO(),
        batch_size=batch_size,
        lr=lr,
        kl_warmup=kl_warmup,
        seed=seed,
        compile=compile,
        steps=steps,
        device=device,
    )
    if progress is True:
        progress = default_reporter()
    reporter = progress or Silent()
    with ExitStack() as stack:
        if folder is not None:
            stack.enter_context(folder.undone_on_error())
        found = _open(folder, settings, resume=resume)
        stack.enter_context(isolated(stream_seed(seed, "noise")))
        stack.enter_context(_training_mode(model, guide))
        loop.start(folder, found)
        stack.callback(loop.log.close)
        request = stack.enter_context(deferred_signals(enabled=folder is not None))
        if loop.step < steps:
            loop.compile(reporter.note)
        reporter.start(loop.step, steps)
        stack.callback(reporter.stop)
        for row in loop.run(steps, log_every=log_every, checkpoint_every=checkpoint_every, request=request):
            if row is None:
                reporter.advance(loop.step)
                continue
            reporter.log(row)
            for callback in callbacks:
                callback(row)
    return FitResult(loop.log.rows, loop.step, loop.seconds, loop.compile_seconds)


class _Loop:
    """The state of one call of :func:`fit`."""

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        data: Any,
        elbo: ELBO,
        *,
        batch_size: int,
        lr: float,
        kl_warmup: int,
        seed: int,
        compile: bool | None,
        steps: int,
        device: str | torch.device | None,
    ) -> None:
        for name, module in (("model", model), ("guide", guide)):
            if not isinstance(module, nn.Module):
                raise InputError(f"{name}: expected a torch.nn.Module, got {type(module).__name__}")
        if not isinstance(elbo, ELBO):
            raise InputError(
                f"elbo: expected a Pyro ELBO such as AVAE_ELBO(), got {type(elbo).__name__}; give it before it"
                " is called on (model, guide)"
            )
        if not trainable(model, guide):
            raise InputError("model and guide: expected parameters to train, found none that requires grad")
        self.device = _move(model, guide, device)
        self.modules = (model, guide)
        self.source = as_source(data, self.device)
        self.order = EpochOrder(len(self.source), min(batch_size, len(self.source)), seed=seed, device=self.device)
        fused = self.device.type in ("cpu", "cuda")
        optimizer = torch.optim.Adam(
            trainable(model, guide).values(),
            lr=lr,
            fused=fused or None,
            capturable=self.device.type == "cuda",  # its step count on the device: a CUDA graph may hold the whole step
        )
        self._make_step = partial(SVIStep, model, guide, elbo, optimizer, self.device, kl_warmup=kl_warmup, seed=seed)
        self.svi = self._make_step()
        self.asked_to_compile = compile
        self.compiled = steps >= _WORTH_COMPILING if compile is None else compile
        self.compile_seconds = 0.0
        self.augmentation = torch.Generator(self.device).manual_seed(stream_seed(seed, "augmentation"))
        self.state = TrainingState(model, guide, optimizer, self.augmentation, self.device)
        self.seed = seed
        self.kl_warmup = kl_warmup
        self.facts = {
            "batch_size": self.order.batch_size,
            "lr": lr,
            "kl_warmup": kl_warmup,
            "seed": seed,
            "images": len(self.source),
        }
        self.step = self.first = self.saved = 0
        self.seconds = 0.0
        self.folder: RunFolder | None = None
        self.log = TrainingLog(None)

    def start(self, folder: RunFolder | None, found: Checkpoint | None) -> None:
        """Begin, or go on from a checkpoint."""
        if found is not None:
            self._restore(found)
        self.folder = folder
        self.log = TrainingLog(folder, last_step=self.step)

    def compile(self, say: Callable[[str], None]) -> None:
        """Compile the step where it is to be; a program that is invalid is told as that, by Pyro's own checks."""
        if not self.compiled:
            return
        missing = compiler_missing(self.device)
        if missing is not None:
            log.warning("%s; steps are not compiled", missing)
            return
        self.svi = self._make_step(compiled=True)
        x, _ = self.source.batch(self.order(self.step), self.augmentation.clone_state())
        say("compiling the step, which takes seconds to minutes (--no-compile trains without)")
        with pyro.validation_enabled(True):
            self.compile_seconds = self.svi.compile(x)
        say(f"compiled in {self.compile_seconds:.1f} s")

    def run(self, steps: int, *, log_every: int, checkpoint_every: int, request: StopRequest) -> Iterator[Row | None]:
        """Train up to ``steps``; yields after each step, the row where it is a logged one."""
        began, before = time.monotonic(), self.seconds
        while self.step < steps:
            done = self.step + 1
            logged = done == 1 or done == steps or done % log_every == 0
            self._one(validate=self.step == self.first, with_entropy=logged)
            self.seconds = before + time.monotonic() - began
            row = None
            if logged:
                row = self._row()
                self.log.write(row)
            if done == steps or done % checkpoint_every == 0:
                self._save()
            yield row
            if request.signum is not None and done < steps:
                self._save()
                raise Interrupted(request.signum, done)

    def _one(self, *, validate: bool, with_entropy: bool) -> None:
        with pyro.validation_enabled(validate):
            x, _ = self.source.batch(self.order(self.step), self.augmentation)
            self.svi(x, number=self.step + 1, with_entropy=with_entropy)
        self.step += 1

    def _row(self) -> Row:
        learned = {name: float(value) for name, value in watched(self.modules).items()}
        warmth = {"kl_weight": self.svi.kl_weight(self.step)} if self.kl_warmup else {}
        return {"step": self.step, **self.svi.row(before=self.first), **warmth, **learned}

    def _save(self) -> None:
        if self.folder is None or self.saved == self.step:
            return
        self.svi.row(before=self.first)  # refuses a loss that is not finite
        try:
            self.state.check_finite()
        except FloatingPointError as error:
            raise NonFiniteError(f"step {self.step}: {error}") from None
        versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
        facts = {
            "seconds": self.seconds,
            "device": self.device.type,
            "fit": self.facts,
            "compiled": self.compiled,
            "versions": versions,
        }
        save_checkpoint(self.folder.checkpoints, Checkpoint(self.step, self.state.tensors(), facts))
        self.saved = self.step

    def _restore(self, found: Checkpoint) -> None:
        then = found.facts.get("fit")
        for name, value in self.facts.items():
            if not isinstance(then, dict) or then.get(name) != value:
                other = then.get(name) if isinstance(then, dict) else None
                raise InputError(f"{name}: the run to go on with has {other}, got {value}")
        compiled = bool(found.facts.get("compiled", False))
        if self.asked_to_compile is not None and self.asked_to_compile != compiled:
            raise InputError(f"compile: the run to go on with has {compiled}, got {self.asked_to_compile}")
        self.compiled = compiled
        same_device = found.facts.get("device") == self.device.type
        self.state.restore(found.tensors, same_device=same_device)
        if not same_device:
            # The other device's generators cannot go on here; the step makes the numbers new ones.
            torch.manual_seed(stream_seed(self.seed, "noise", found.step))
            self.augmentation.manual_seed(stream_seed(self.seed, "augmentation", found.step))
        self.step = self.first = self.saved = found.step
        self.seconds = float(found.facts.get("seconds", 0.0))


def _open(folder: RunFolder | None, settings: Settings | None, *, resume: bool) -> Checkpoint | None:
    if folder is None:
        return None
    found = None
    if resume:
        found = folder.resume()
    else:
        folder.begin()
    if settings is not None:
        folder.write_settings(settings)
    return found


def _move(model: nn.Module, guide: nn.Module, device: str | torch.device | None) -> torch.device:
    """Move both to the device, by default that of the first parameter."""
    if device is None:
        return next(iter(trainable(model, guide).values())).device
    place = as_device(device)
    model.to(place)
    guide.to(place)
    return place


@contextmanager
def _training_mode(*modules: nn.Module) -> Iterator[None]:
    """Training mode inside, and for every part what it was afterwards."""
    modes = {part: part.training for module in modules for part in module.modules()}
    for module in modules:
        module.train()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
