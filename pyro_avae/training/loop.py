"""Training a pair, or one for each of several seeds."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.randomness import isolated, stream_seed
from pyro_avae.runs.checkpoints import Checkpoint
from pyro_avae.runs.run_folder import Row, RunFolder
from pyro_avae.runs.settings import Settings, setting_infos
from pyro_avae.runs.trust import remember
from pyro_avae.training.interrupt import deferred_signals
from pyro_avae.training.plan import Plan
from pyro_avae.training.progress import Reporter, Silent, default_reporter
from pyro_avae.training.ranks import OneRank, Ranks
from pyro_avae.training.sources import NoData, TrainingData
from pyro_avae.training.trainer import Trainer

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["FitResult", "fit", "fit_seeds"]


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
    data: "ImageData | Split | TrainingData | NoData | Tensor",
    *,
    elbo: ELBO | None = None,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-4,
    kl_warmup: int = 0,
    seed: int = 0,
    precision: str = "32-true",
    compile: bool | None = None,
    device: str | torch.device | None = None,
    out: str | Path | RunFolder | None = None,
    resume: bool = False,
    settings: Settings | None = None,
    checkpoint_every: int = 1000,
    keep_every: int | None = None,
    log_every: int = 100,
    progress: bool | Reporter = False,
    callbacks: Sequence[Callable[[Row], None]] = (),
    ranks: Ranks | None = None,
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
        precision: ``"32-true"``, the parameters' own dtype; ``"bf16-mixed"``, in which networks compute in bfloat16
            under ``torch.autocast``; or ``"64-true"``, which turns the pair and the images into float64.
        compile: trace and compile the step (:func:`~pyro_avae.compilation.compile_step`; hooks of parameters are then
            not called). By default where ``steps`` are at least 5,000, which makes up for the time that it takes. A
            resumed run goes on as it began.
        device: where to train; the modules are moved there. By default where the model is.
        out: a new or empty folder.
        resume: go on with the run in ``out``.
        settings: written into ``out`` as ``config.json``, which is what :func:`pyro_avae.load` needs. Their builder is
            then one that this user has trained with, see :func:`~pyro_avae.runs.trust.check_trusted`.
        checkpoint_every: steps between checkpoints; one is made at the end in any case. The last two are kept.
        keep_every: steps between the parameters that stay in ``out/kept``, for
            :func:`~pyro_avae.evaluation.influence`; by default ten times, evenly spread; 0 for none.
        log_every: steps between logged ones; the first and the last are logged in any case.
        progress: show a bar (a few lines where stderr is no terminal), or a reporter of one's own.
        callbacks: each called with every logged row.
        ranks: the processes that train this run together, by default this one alone. Each takes its part of every
            batch; their averaged gradients are those of the whole batch on one device. The first writes ``out``. Data
            of one's own are augmented from a stream of each rank's own, and batch normalisation has each rank's
            statistics.

    Raises:
        InputError: arguments out of range, modules without parameters, a folder that is not empty, a checkpoint of
            another run, or a program that cannot be compiled.
        NonFiniteError: the loss stopped being finite; the step and the first such term are named.
        RankError: another rank has ended.
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
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        kl_warmup=kl_warmup,
        precision=precision,
        compile=compile,
        checkpoint_every=checkpoint_every,
        keep_every=keep_every,
        log_every=log_every,
    )
    (result,) = _train(
        [(model, guide)],
        data,
        elbo,
        plan,
        seeds=[seed],
        device=device,
        outs=[out],
        settings=[settings],
        resume=resume,
        progress=progress,
        callbacks=callbacks,
        ranks=ranks,
    )
    return result


def fit_seeds(
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    data: "ImageData | Split | TrainingData | NoData | Tensor",
    *,
    seeds: Sequence[int],
    elbo: ELBO | None = None,
    steps: int,
    batch_size: int = 64,
    lr: float = 1e-4,
    kl_warmup: int = 0,
    precision: str = "32-true",
    compile: bool | None = None,
    device: str | torch.device | None = None,
    outs: Sequence[str | Path | RunFolder] | None = None,
    resume: bool = False,
    settings: Sequence[Settings] | None = None,
    checkpoint_every: int = 1000,
    keep_every: int | None = None,
    log_every: int = 100,
    progress: bool | Reporter = False,
    ranks: Ranks | None = None,
) -> list[FitResult]:
    """Train a pair for each of several seeds at once, in one step for all.

    Parameters are stacked and the traced step is mapped over them by ``torch.func.vmap``: what was one matrix product
    for each seed becomes one batched product. Each seed has its own data order, colours and noise, and becomes, up to
    rounding, what :func:`fit` makes of it alone; it leaves a run of its own in its folder.

    Args:
        pairs: (model, guide) for each seed, of one structure, sharing no parameter. What differs otherwise, in plain
            numbers that their programs read, is not seen: all run the program of the first.
        data: as :func:`fit`; images on the device are there once.
        seeds: one for each pair.
        elbo: as :func:`fit`, as are the other options.
        outs: a folder for each seed.
        resume: go on from the newest step that all folders have a checkpoint of.
        settings: for each seed, written into its folder.

    Raises:
        InputError: as :func:`fit`; pairs that differ in structure or share parameters; not one seed for each.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> pairs = [(VAE(nn.Linear(1, 4), latent_dim=1), AmortizedGuide(LinearEncoder(4, 1))) for _ in range(2)]
        >>> results = fit_seeds(pairs, torch.randn(50, 1) * torch.ones(4), seeds=[0, 1], steps=3)
        >>> [result.steps for result in results]
        [3, 3]
    """
    if not pairs:
        raise InputError("pairs: expected at least one (model, guide)")
    if len(pairs) != len(seeds) or len(set(seeds)) < len(seeds):
        raise InputError(f"seeds: expected {len(pairs)} different ones, one for each pair, got {list(seeds)}")
    for name, values in (("outs", outs), ("settings", settings)):
        if values is not None and len(values) != len(seeds):
            raise InputError(f"{name}: expected {len(seeds)}, one for each seed, got {len(values)}")
    plan = Plan(
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        kl_warmup=kl_warmup,
        precision=precision,
        compile=compile,
        checkpoint_every=checkpoint_every,
        keep_every=keep_every,
        log_every=log_every,
    )
    return _train(
        pairs,
        data,
        elbo,
        plan,
        seeds=seeds,
        device=device,
        outs=outs or [None] * len(seeds),
        settings=settings or [None] * len(seeds),
        resume=resume,
        progress=progress,
        callbacks=(),
        ranks=ranks,
    )


def _train(
    pairs: Sequence[tuple[nn.Module, nn.Module]],
    data: "ImageData | Split | TrainingData | NoData | Tensor",
    elbo: ELBO | None,
    plan: Plan,
    *,
    seeds: Sequence[int],
    device: str | torch.device | None,
    outs: Sequence[str | Path | RunFolder | None],
    settings: Sequence[Settings | None],
    resume: bool,
    progress: bool | Reporter,
    callbacks: Sequence[Callable[[Row], None]],
    ranks: Ranks | None,
) -> list[FitResult]:
    for seed in seeds:
        setting_infos()["seed"].kind.check("seed", seed)
    ranks = ranks or OneRank()
    folders = [RunFolder(out) if isinstance(out, str | Path) else out for out in outs]
    if resume and None in folders:
        raise InputError("resume: expected out, the folder of the run to go on with")
    if ranks.rank != 0:
        folders, progress = [None] * len(seeds), False
    trainer = Trainer(pairs, data, elbo or AVAE_ELBO(), plan, seeds=seeds, device=device, ranks=ranks)
    if progress is True:
        progress = default_reporter()
    reporter = progress or Silent()
    with ExitStack() as stack:
        for folder in folders:
            if folder is not None:
                stack.enter_context(folder.undone_on_error())
        stack.callback(trainer.close)  # before what failed is undone: a log that is open writes into its folder
        for folder in folders:
            if folder is not None:
                if not resume:
                    folder.begin()
                stack.enter_context(folder.locked())
        found = _open(folders, settings, resume=resume)
        stack.enter_context(isolated(stream_seed(seeds[0], "noise")))
        for pair in pairs:
            stack.enter_context(_training_mode(*pair))
        trainer.start(folders, found)
        request = stack.enter_context(deferred_signals(enabled=None not in folders or ranks.count > 1))
        trainer.compile(reporter.note)
        reporter.start(trainer.step, plan.steps)
        stack.callback(reporter.stop)
        for rows in trainer.run(request):
            if rows is None:
                reporter.advance(trainer.step)
                continue
            reporter.log(rows[0])
            for callback in callbacks:
                callback(rows[0])
    return [
        FitResult(member.log.rows, trainer.step, trainer.seconds, trainer.compile_seconds) for member in trainer.members
    ]


def _open(
    folders: Sequence[RunFolder | None], settings: Sequence[Settings | None], *, resume: bool
) -> list[Checkpoint | None]:
    """Find the newest checkpoints there that are of one step, and write the settings."""
    found = [folder.resume() if folder is not None and resume else None for folder in folders]
    common = min((0 if checkpoint is None else checkpoint.step for checkpoint in found), default=0)
    for number, folder in enumerate(folders):
        checkpoint = found[number]
        if folder is not None and checkpoint is not None and checkpoint.step != common:
            found[number] = folder.resume(at=common) if common else None
    for folder, each in zip(folders, settings, strict=True):
        if folder is not None and each is not None:
            folder.write_settings(each)
            if each.builder is not None:
                remember(each.builder)  # whoever trains with it may load what comes of it
    return found


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
