"""``pyro-avae evaluate``: attacks and measures a trained run, and writes ``RUN/evaluation.json``."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pyro_avae.data import load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.evaluation import ATTACKS, evaluate
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.train import make_importable
from pyro_avae.paths import shown
from pyro_avae.runs.kinds import Integer, Number
from pyro_avae.runs.loading import LoadedRun, load_run
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["add_arguments", "evaluation_table", "run", "write_evaluation"]

_EPSILON = Number("a number in [0, 1]", lambda v: 0 <= v <= 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained run")
    parser.add_argument(
        "--epsilons",
        type=reader("--epsilons", _EPSILON),
        nargs="+",
        default=[0.0, 0.1, 0.2],
        metavar="NUMBER",
        help="L-infinity radii of the attack, pixels in [0, 1] (default: 0 0.1 0.2)",
    )
    parser.add_argument(
        "--attack", default="pgd", metavar="NAME", help=f"{', '.join(ATTACKS)}; PGD runs with each (default: pgd)"
    )
    count = Integer(1, 10**6)
    parser.add_argument("--steps", type=reader("--steps", count), default=40, metavar="N", help="of PGD (default: 40)")
    parser.add_argument(
        "--restarts", type=reader("--restarts", count), default=2, metavar="N", help="of PGD (default: 2)"
    )
    parser.add_argument(
        "--limit", type=reader("--limit", COUNT), default=None, metavar="N", help="attack the first N test images only"
    )
    parser.add_argument("--data-root", default=None, metavar="DIR", help="default: the one stored in the run")
    parser.add_argument(
        "--seed", type=reader("--seed", Integer(0, 2**32 - 1)), default=0, metavar="N", help="of attacks and estimates"
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit status."""
    device = as_device(args.device or default_device())
    folder = RunFolder(args.run)
    if ":" in folder.read_settings().method:
        make_importable()
    loaded = load_run(folder.path, device=device)
    root = args.data_root if args.data_root is not None else loaded.config.data_root
    data = load_dataset(loaded.config.dataset, root=root, device=device)
    with stage_bars(enabled=not args.no_progress) as report:
        result: dict[str, Any] = evaluate(
            loaded.model,  # type: ignore[arg-type]  # a user's own pair has to have what evaluation asks of it
            loaded.guide,  # type: ignore[arg-type]
            data,
            epsilons=args.epsilons,
            attack=args.attack,
            steps=args.steps,
            restarts=args.restarts,
            limit=args.limit,
            seed=args.seed,
            progress=report,
        )
    document = write_evaluation(folder, loaded, result)
    Console().print(evaluation_table(document))
    print(f"written to {shown(folder.evaluation)}")
    return 0


def write_evaluation(folder: RunFolder, loaded: LoadedRun, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``evaluation.json``, what was measured behind what was trained, and return its content."""
    config = loaded.config
    document = {
        "method": config.method,
        "dataset": config.dataset,
        "seed": config.seed,
        "steps": loaded.step,
        **result,
        "settings": config.to_json(),
        "training_seconds": loaded.seconds,
    }
    folder.write_evaluation(document)
    return document


def evaluation_table(document: Mapping[str, Any]) -> Table:
    """The accuracies, a row for each task and attack, and the rest as a caption; without labels, the rest alone."""
    rows = [
        (task, label, measured[key])
        for task, measured in document["tasks"].items()
        for key, label in (("accuracy", "PGD"), ("accuracy_autoattack", "AutoAttack"))
        if key in measured
    ]
    title = f"{document['method']} on {document['dataset']}, {document['steps']} steps"
    bound = "  ".join(f"{name} {_number(value)}" for name, value in document["bound"].items())
    summary = (
        f"MSE {_number(document['mse'], 5)} ({_number(document['mse_255'], 1)} on 0-255)",
        f"bound, nats per image: {bound}",
        f"log p(x) {_number(document['log_likelihood'])}, PSIS k̂ {_number(document['psis_khat']['median'])} (median)",
    )
    if not rows:
        table = Table("no labels: no probe, no attack", title=title)
        for line in summary:
            table.add_row(line)
        return table
    table = Table(title=title, caption="\n".join(summary))
    table.add_column("task")
    table.add_column("attack")
    for epsilon in rows[0][2]:
        table.add_column(f"ε = {epsilon}", justify="right")
    for task, label, accuracy in rows:
        table.add_row(task, label, *(f"{100 * value:.1f} %" for value in accuracy.values()))
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
