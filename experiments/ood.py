"""``pyro-avae ood``: how well a trained run tells strange images from those it knows; writes ``RUN/ood.json``."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pyro_avae.data import DATASETS, ImageData, Split, load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood import LABELS, TRAIN_IMAGES, VARIANTS, Pair, evaluate_ood
from pyro_avae.evaluation.settings import Progress
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.triples import add_trust, load_trusted
from pyro_avae.paths import shown
from pyro_avae.report.ood import ood_picture
from pyro_avae.runs.files import write_atomically, write_json
from pyro_avae.runs.kinds import Integer, Number
from pyro_avae.runs.loading import LoadedRun
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.trust import Trust

__all__ = ["add_arguments", "ood_table", "run", "score_run"]

_SHORT = {"auroc": "AUROC", "auprc": "AUPRC", "fpr95": "FPR95"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained run")
    parser.add_argument(
        "--ood", required=True, metavar="NAME", help=f"the strange images: {', '.join(DATASETS)}, folder:PATH"
    )
    parser.add_argument("--data-root", default=None, metavar="DIR", help="default: the one stored in the run")
    parser.add_argument(
        "--limit", type=reader("--limit", COUNT), default=None, metavar="N", help="the first N images of each set"
    )
    parser.add_argument(
        "--background",
        type=Path,
        default=None,
        metavar="RUN",
        help="a run on images with noise in them (mutated-mnist, ...), for the likelihood ratio",
    )
    parser.add_argument(
        "--ensemble", type=Path, nargs="+", default=[], metavar="RUN", help="runs of other seeds, for WAIC"
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        default=list(VARIANTS),
        metavar="NAME",
        help=f"what the regret optimises for each image: {', '.join(VARIANTS)} (default: each)",
    )
    parser.add_argument(
        "--steps",
        type=reader("--steps", Integer(1, 10**6)),
        default=100,
        metavar="N",
        help="of the regret (default: 100)",
    )
    rates = ", ".join(f"{name} {variant.lr:g}" for name, variant in VARIANTS.items())
    parser.add_argument(
        "--lr",
        type=reader("--lr", Number("a number above 0", lambda v: v > 0)),
        default=None,
        metavar="NUMBER",
        help=f"of the regret (default: {rates})",
    )
    add_trust(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Score; returns the exit status."""
    for variant in args.variant:
        if variant not in VARIANTS:
            raise InputError(f"--variant: expected some of {', '.join(VARIANTS)}, got {variant!r}")
    device = as_device(args.device or default_device())
    loaded = load_trusted(args.run, device=device, trust=args.trust)
    root = args.data_root if args.data_root is not None else loaded.config.data_root
    data = load_dataset(loaded.config.dataset, root=root, device=device)
    outside = load_dataset(args.ood, root=root, device=device)
    with stage_bars(enabled=not args.no_progress) as report:
        document = score_run(
            RunFolder(args.run),
            loaded,
            data,
            outside,
            background=None
            if args.background is None
            else _other(args.background, loaded, "--background", device, args.trust),
            ensemble=[_seed(path, loaded, device, args.trust) for path in args.ensemble],
            limit=args.limit,
            progress=report,
            variants=args.variant,
            steps=args.steps,
            lr=args.lr,
            seed=args.seed,
        )
    Console().print(ood_table(document))
    folder = RunFolder(args.run)
    print(f"written to {shown(folder.ood)} and {shown(folder.ood_picture)}")
    return 0


def score_run(
    folder: RunFolder,
    loaded: LoadedRun,
    data: ImageData,
    outside: ImageData,
    *,
    background: Pair | None = None,
    ensemble: Sequence[Pair] = (),
    limit: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score test images of both sets, write ``ood.json`` and ``ood.svg`` into the run's folder, return the former.

    Args:
        folder: the run's.
        loaded: the run.
        data: what it was trained on.
        outside: the strange images.
        background: for the likelihood ratio.
        ensemble: for WAIC.
        limit: the first images of either set.
        progress: called with ``(stage, done, total)``.
        **options: of :func:`~pyro_avae.evaluation.ood.evaluate_ood`.

    Raises:
        InputError: sets of different shapes; else as :func:`~pyro_avae.evaluation.ood.evaluate_ood`.
    """
    if data.shape != outside.shape:
        raise InputError(
            f"--ood: expected images of shape {data.shape}, as those of {data.name}, got {outside.shape} in"
            f" {outside.name}"
        )
    found = evaluate_ood(
        cast(Any, loaded.model),  # a user's own pair has to have what evaluation asks of it
        cast(Any, loaded.guide),
        _images(data.test, limit),
        _images(outside.test, limit),
        train=_images(data.train, TRAIN_IMAGES if limit is None else min(limit, TRAIN_IMAGES)),
        background=background,
        ensemble=ensemble,
        progress=progress,
        **options,
    )
    config = loaded.config
    origin = {
        "method": config.method,
        "dataset": config.dataset,
        "training_seed": config.seed,
        "training_steps": loaded.step,
    }
    document = {**origin, "inside": data.name, "outside": outside.name, **found}
    write_json(folder.ood, document)
    write_atomically(folder.ood_picture, ood_picture(document).content)
    return document


def ood_table(document: Mapping[str, Any]) -> Group:
    """The scores for a terminal, and below them what is absent."""
    counts = document["num_images"]
    table = Table(
        title=f"{document['method']}: {counts['inside']} images of {document['inside']},"
        f" {counts['outside']} of {document['outside']}"
    )
    for heading in ("score", *_SHORT.values()):
        table.add_column(heading, justify="left" if heading == "score" else "right")
    for name, score in document["scores"].items():
        first = score["auroc"]
        values = [f"{score[metric]['value']:.3f}" for metric in list(_SHORT)[1:]]
        interval = f"{first['value']:.3f} ({first['low']:.3f} to {first['high']:.3f})"
        table.add_row(LABELS[name], interval, *values)
    absent = [Text(f"{LABELS[name]}: absent, {why}") for name, why in document["absent"].items()]
    return Group(table, *absent)


def _images(split: Split, limit: int | None) -> torch.Tensor:
    count = len(split) if limit is None else min(limit, len(split))
    return split.fixed_batch(torch.arange(count))[0]


def _seed(path: Path, loaded: LoadedRun, device: torch.device, trust: Trust) -> Pair:
    """The pair of a run that differs in the seed."""
    found = RunFolder(path).read_settings().dataset
    if found != loaded.config.dataset:
        raise InputError(
            f"--ensemble: expected runs on {loaded.config.dataset}, as the one that is scored, got one on {found} in"
            f" {shown(path)}"
        )
    return _other(path, loaded, "--ensemble", device, trust)


def _other(path: Path, loaded: LoadedRun, option: str, device: torch.device, trust: Trust) -> Pair:
    """The pair of another run, which has to see images of the same shape."""
    other = load_trusted(path, device=device, trust=trust)
    if other.config.image_shape != loaded.config.image_shape:
        raise InputError(
            f"{option}: expected a run on images of shape {loaded.config.image_shape}, got one on"
            f" {other.config.image_shape} in {shown(path)}"
        )
    return Pair(cast(Any, other.model), cast(Any, other.guide))
