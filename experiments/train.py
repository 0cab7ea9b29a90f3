"""``pyro-avae train``: a run of one method on one data set, in a folder of its own."""

import argparse
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pyro_avae.data import DATASETS, ImageData, load_dataset
from pyro_avae.errors import InputError
from pyro_avae.experiments import several_devices
from pyro_avae.experiments.defaults import DATASET_DEFAULTS, settings_for
from pyro_avae.experiments.methods import METHODS, builder_of
from pyro_avae.experiments.options import add_setting, option, reader
from pyro_avae.experiments.parts import ARCHITECTURES, LIKELIHOODS, MODELS, PRIORS
from pyro_avae.experiments.triples import add_trust, make_importable, make_triple
from pyro_avae.experiments.unused import refuse_unused
from pyro_avae.experiments.warm_start import copy_trained, inherited
from pyro_avae.paths import shown, user_path
from pyro_avae.runs.checkpoints import Checkpoint, newest_checkpoint
from pyro_avae.runs.kinds import Integer
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings, setting_infos
from pyro_avae.runs.trust import Trust
from pyro_avae.training import FitResult, fit_seeds
from pyro_avae.training.ranks import Ranks
from pyro_avae.training.sources import NoData

__all__ = [
    "TrainedRun",
    "add_arguments",
    "load_training_data",
    "run",
    "train_run",
    "train_runs",
]

log = logging.getLogger(__name__)

#: Settings that the data decide, or that follow from others.
_NO_OPTION = ("image_shape", "builder")

_HELP = {
    "method": f"{', '.join(METHODS)}, or module:function of your own: settings -> (model, guide, elbo)",
    "dataset": f"{', '.join(DATASETS)}, folder:PATH",
    "likelihood": f"{', '.join(LIKELIHOODS)}; bernoulli is for pixels that are 0 or 1, cross-entropy for grey ones,"
    " categorical and logistic-mixture for 256 levels",
    "architecture": ", ".join(ARCHITECTURES),
    "model": f"{', '.join(MODELS)}; lossy: each pixel given z and a window of those before it",
    "prior": f"of z: {', '.join(PRIORS)}; flow: N(0, I) through an autoregressive flow",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options: one for each setting, and those of this one call."""
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run's folder, new or empty")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the run in --out; settings left out are that run's, others must equal it",
    )
    for name in setting_infos():
        if name not in _NO_OPTION:
            add_setting(parser, name, help=_help(name))
    parser.add_argument(
        "--seeds",
        type=reader("--seeds", Integer(1, 1000)),
        default=None,
        metavar="N",
        help="train N seeds at once, --seed and those after it, each a run of its own in RUN/seed-S",
    )
    several_devices.add_arguments(parser)
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add_trust(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Train; returns the exit status."""
    given = {name: value for name, value in vars(args).items() if name in setting_infos()}
    for name in ("data_root", "start_from"):
        if given.get(name) is not None:
            given[name] = str(user_path(given[name]))
    if not args.resume:
        several_devices.check_batch_size(args, lambda: _new_settings(given).batch_size)
    try:
        with several_devices.started(args) as (ranks, device):
            prepared = several_devices.decided_by_first(ranks, lambda: _prepared(args, given))
            if all(finished for _, _, finished in prepared):
                if not ranks.rank:
                    print(f"{shown(RunFolder(args.out).path)}: already finished, {prepared[0][1].steps} steps")
                return 0
            _train(args, given, [(folder, settings) for folder, settings, _ in prepared], ranks, device)
    except several_devices.OtherRank:
        return 1
    return 0


def _prepared(args: argparse.Namespace, given: Mapping[str, Any]) -> list[tuple[RunFolder, Settings, bool]]:
    """The folder and settings of each seed, and whether it is trained already."""
    top = RunFolder(args.out)
    there = seeds_in(top) if args.resume else []
    if args.seeds is None:
        if there:
            raise InputError(
                f"{shown(top.path)}: holds several runs; give --seeds {len(there)} to go on with them, or --out"
                f" {shown(top.path / f'seed-{there[0]}')}"
            )
        return [_prepare(top, given, resume=args.resume)]
    if args.resume and top.config.exists():
        raise InputError(f"{shown(top.path)}: holds one run; leave out --seeds to go on with it")
    if not args.resume and not top.is_empty():
        top.begin()
    first = given.get("seed", there[0] if there else Settings().seed)
    seeds = list(range(first, first + args.seeds))
    if there and seeds != there:
        raise InputError(
            f"--seeds: {shown(top.path)} holds the seeds {_listed(there)}, got {_listed(seeds)}; go on with those, or"
            " train into another folder"
        )
    return [
        _prepare(RunFolder(top.path / f"seed-{seed}"), {**given, "seed": seed}, resume=args.resume) for seed in seeds
    ]


def seeds_in(folder: RunFolder) -> list[int]:
    """The seeds whose runs lie in a folder that is no run itself."""
    if folder.config.exists() or not folder.path.is_dir():
        return []
    names = (path.parent.name.removeprefix("seed-") for path in folder.path.glob("seed-*/config.json"))
    return sorted(int(name) for name in names if name.isdecimal())


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _prepare(folder: RunFolder, given: Mapping[str, Any], *, resume: bool) -> tuple[RunFolder, Settings, bool]:
    checkpoint = newest_checkpoint(folder.checkpoints) if resume else None
    settings = _settings_to_resume(folder, given, checkpoint) if resume else None
    if settings is None:
        if resume and folder.is_empty() and not given.keys() - {"seed", "steps"}:
            raise InputError(
                f"{shown(folder.path)}: no run to go on with; leave out --resume to train one there, or give its"
                " settings to begin one where there is none"
            )
        settings = _new_settings(given)
        if not resume and not folder.is_empty():
            folder.begin()
    elif checkpoint is not None and checkpoint.step >= settings.steps:
        return folder, settings, True
    refuse_unused(settings, given)
    if settings.kl_warmup > settings.steps:
        raise InputError(
            f"--kl-warmup: expected at most the {settings.steps} steps of training, got {settings.kl_warmup}; the KL"
            " terms would never reach their weight"
        )
    return folder, settings, False


def _train(
    args: argparse.Namespace,
    given: Mapping[str, Any],
    runs: Sequence[tuple[RunFolder, Settings]],
    ranks: Ranks,
    device: torch.device,
) -> None:
    folders, settings = [folder for folder, _ in runs], [each for _, each in runs]
    # A builder that was asked for in words is trusted; one that the folder alone names has to be known.
    trust = [*args.trust, *([given["method"]] if "method" in given else [])]
    for folder, each in runs:
        where = "method" if each.builder in trust else f"{shown(folder.config)}: builder"
        make_importable(each.builder, trust=trust, where=where)
    # On the host: training puts on the device what fits there.
    data = load_training_data(settings[0], torch.device("cpu"))
    if isinstance(data, ImageData):
        for folder, each in runs:
            if args.resume and newest_checkpoint(folder.checkpoints) and each.image_shape != data.shape:
                raise InputError(
                    f"image_shape: the run in {shown(folder.path)} has {each.image_shape}, got {data.shape}"
                )
        settings = [replace(each, image_shape=data.shape) for each in settings]
    trained = train_runs(
        settings,
        data,
        folders,
        device=device,
        resume=args.resume,
        progress=not args.no_progress,
        given=tuple(given),
        trust=trust,
        ranks=ranks,
    )
    if ranks.rank:
        return
    for each, folder, (_, _, result) in zip(settings, folders, trained, strict=True):
        print(_summary(each, result, folder))
        first, last = (result.history[place]["loss"] for place in (0, -1))
        if first is not None and last is not None and last - first > abs(first):
            log.warning("--lr: the loss went up, from %.4g to %.4g nats per image; a smaller one may help", first, last)


def load_training_data(settings: Settings, device: torch.device) -> ImageData | NoData:
    """What the settings' method trains on: their data set, or nothing.

    Raises:
        InputError: as :func:`~pyro_avae.data.load_dataset`; a method that needs a run to start from, and has none.
    """
    method = METHODS.get(settings.method)
    if method is None or method.needs_data:
        return load_dataset(settings.dataset, root=settings.data_root, device=device, limit=settings.limit)
    if settings.start_from is None:
        raise InputError(f"--from: the method {settings.method} trains on no data; give the trained run it starts from")
    return NoData()


class TrainedRun(NamedTuple):
    """The pair, trained, and what :func:`~pyro_avae.training.fit` says of it."""

    model: nn.Module
    guide: nn.Module
    result: FitResult


def train_run(
    settings: Settings,
    data: ImageData | NoData,
    folder: RunFolder,
    *,
    device: torch.device,
    resume: bool = False,
    progress: bool = False,
    given: Collection[str] = (),
) -> TrainedRun:
    """Build what the settings say and train it in ``folder``.

    Args:
        settings: of the run.
        data: what it is trained on.
        folder: where it is kept.
        device: where it runs.
        resume: whether to go on with the run in ``folder``.
        progress: whether to show a bar.
        given: names of the settings that were asked for; see :func:`make_triple`.

    Raises:
        InputError: as :func:`make_triple`, :func:`~pyro_avae.training.fit` and
            :func:`~pyro_avae.experiments.warm_start.copy_trained`.
    """
    (trained,) = train_runs([settings], data, [folder], device=device, resume=resume, progress=progress, given=given)
    return trained


def train_runs(
    settings: Sequence[Settings],
    data: ImageData | NoData,
    folders: Sequence[RunFolder],
    *,
    device: torch.device,
    resume: bool = False,
    progress: bool = False,
    given: Collection[str] = (),
    trust: Trust = (),
    ranks: Ranks | None = None,
) -> list[TrainedRun]:
    """:func:`train_run` for several seeds at once, see :func:`~pyro_avae.training.fit_seeds`.

    Args:
        settings: of each run; they differ in the seed alone.
        data: as there, like the other options.
        folders: one for each run.
        trust: builders of one's own that were asked for; see :func:`make_triple`.
        ranks: the processes that share each batch.
    """
    triples = [make_triple(each, given=given, trust=trust) for each in settings]
    for each, folder, triple in zip(settings, folders, triples, strict=True):
        if each.start_from is not None and not (resume and newest_checkpoint(folder.checkpoints)):
            copy_trained(each.start_from, triple)
    common = settings[0]
    results = fit_seeds(
        [(model, guide) for model, guide, _ in triples],
        data,
        elbo=triples[0].elbo,
        seeds=[each.seed for each in settings],
        steps=common.steps,
        batch_size=common.batch_size,
        lr=common.lr,
        kl_warmup=common.kl_warmup,
        precision=common.precision,
        compile=common.compile,
        device=device,
        outs=folders,
        resume=resume,
        settings=settings,
        checkpoint_every=common.checkpoint_every,
        keep_every=common.keep_every,
        log_every=common.log_every,
        progress=progress,
        ranks=ranks,
    )
    return [TrainedRun(model, guide, result) for (model, guide, _), result in zip(triples, results, strict=True)]


def _help(name: str) -> str:
    """What the setting means, and its default where it has one."""
    default = getattr(Settings(), name)
    meaning = _HELP.get(name, setting_infos()[name].help)
    if default is None:
        return meaning
    shown_default = " ".join(map(str, default)) if isinstance(default, tuple) else default
    special = [
        f"{values[name]} for {of}"
        for of, values in (*DATASET_DEFAULTS.items(), *((m, method.defaults) for m, method in METHODS.items()))
        if name in values
    ]
    return f"{meaning} (default: {'; '.join([str(shown_default), *special])})"


def _new_settings(given: Mapping[str, Any]) -> Settings:
    from_run = inherited(given["start_from"]) if given.get("start_from") is not None else {}
    settings = settings_for(given, inherited=from_run)
    settings = replace(settings, builder=builder_of(settings.method))
    if settings.dataset.startswith("folder:"):
        path = user_path(settings.dataset.removeprefix("folder:"))
        settings = replace(settings, dataset=f"folder:{path}")
    return settings


def _settings_to_resume(folder: RunFolder, given: Mapping[str, Any], checkpoint: Checkpoint | None) -> Settings | None:
    """The settings of the run in ``folder``, or None where there is none yet.

    ``given`` ones must equal them where there is a checkpoint; where there is none, nothing is lost by other ones.
    """
    if folder.is_empty() or not folder.config.exists():
        return None
    stored = folder.read_settings()
    asked = replace(stored, **{name: value for name, value in given.items() if name != "dataset"})
    if "dataset" in given:
        asked = replace(asked, dataset=_new_settings({"dataset": given["dataset"]}).dataset)
    different = stored.first_difference(asked)
    if different is not None and checkpoint is None:
        log.warning(
            "%s: other settings than the run there (%s), of which no checkpoint is left",
            shown(folder.path),
            option(different),
        )
        if "method" in given:
            asked = replace(asked, builder=builder_of(asked.method))
    elif different is not None:
        raise InputError(
            f"{option(different)}: the run in {shown(folder.path)} has {getattr(stored, different)!r}, got"
            f" {getattr(asked, different)!r}; leave it out, or train into another folder"
        )
    return asked


def _summary(settings: Settings, result: FitResult, folder: RunFolder) -> str:
    loss = result.history[-1]["loss"]
    compiled = f" (compiled in {result.compile_seconds:.1f} s)" if result.compile_seconds else ""
    return (
        f"{settings.method} on {settings.dataset}: {result.steps} steps,"
        f" {1e3 * result.seconds / result.steps:.1f} ms each{compiled}, loss {loss:.2f} nats per image;"
        f" {shown(folder.path)}"
    )
