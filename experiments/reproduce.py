"""``pyro-avae reproduce``: trains and attacks the rows of the paper's tables, and sets its numbers beside ours."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError, shown_value
from pyro_avae.evaluation import ATTACKS
from pyro_avae.evaluation.settings import EvaluationSettings
from pyro_avae.experiments.density import DensityReproduction
from pyro_avae.experiments.disentanglement import reproduce_disentanglement
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.experiments.paper_experiments import EXPERIMENTS
from pyro_avae.experiments.presets import PRESETS
from pyro_avae.experiments.reproduction import Reproduction
from pyro_avae.experiments.results_figures import FIGURES
from pyro_avae.experiments.rows import GROUPS
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.paths import shown, user_path
from pyro_avae.runs.kinds import Integer, Number
from pyro_avae.runs.settings import setting_infos

__all__ = ["add_arguments", "reproduce", "run"]

#: Experiments that attack nothing, and have presets, rows and files of their own.
_OTHERS = {"disentanglement": reproduce_disentanglement}

_RADIUS = Number("a number in [0, 1]", lambda v: 0 <= v <= 1)

#: What measures an experiment, where it is not attacked.
_KINDS: Mapping[str, type[Reproduction]] = {"density": DensityReproduction}

# What evaluate() has by default; written out, so that an evaluation says how it was made.
_EVALUATION = {"attack": "pgd", "num_importance_samples": 256}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("experiment", metavar="TABLE", help=", ".join([*EXPERIMENTS, *_OTHERS]))
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder; what is finished there is kept")
    parser.add_argument("--data-root", default=None, metavar="DIR", help=setting_infos()["data_root"].help)
    parser.add_argument("--preset", default="cpu", metavar="NAME", help=f"{', '.join(PRESETS)} (default: cpu)")
    parser.add_argument(
        "--rows",
        nargs="+",
        default=None,
        metavar="NAME",
        help=f"{', '.join(GROUPS)}, or rows by name; a row that another starts from comes along (default: all)",
    )
    parser.add_argument("--seeds", type=reader("--seeds", COUNT), default=None, metavar="N", help="how many seeds")
    seed = setting_infos()["seed"]
    parser.add_argument(
        "--seed", type=reader("--seed", seed.kind), default=0, metavar="N", help="the first (default: 0)"
    )
    parser.add_argument(
        "--steps", type=reader("--steps", COUNT), default=None, metavar="N", help="gradient steps a row"
    )
    parser.add_argument("--dataset", default=None, metavar="NAME", help="another one, such as color-fashion-mnist")
    parser.add_argument("--attack", default="pgd", metavar="NAME", help=f"{' or '.join(ATTACKS)} (default: pgd)")
    parser.add_argument(
        "--epsilons",
        type=reader("--epsilons", _RADIUS),
        nargs="+",
        default=None,
        metavar="NUMBER",
        help="L-infinity radii of the attack (default: the paper's)",
    )
    parser.add_argument(
        "--test-images",
        type=reader("--test-images", Integer(2, 10**9)),
        default=None,
        metavar="N",
        help="attack the first N test images only (default: the preset's)",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Reproduce; returns the exit status."""
    options = {name: value for name, value in vars(args).items() if name not in ("experiment", "out", "no_progress")}
    command = _command(args.experiment, args.out, options)
    common = {"progress": not args.no_progress, "command": command, **options}
    if args.experiment in _OTHERS:
        _OTHERS[args.experiment](args.out, **common)
    else:
        reproduce(args.experiment, args.out, **common)
    return 0


def _command(experiment: str, out: Path, options: Mapping[str, Any]) -> str:
    """The command line with every option that has a value."""
    words = ["pyro-avae", "reproduce", experiment, "--out", str(out)]
    for name, value in options.items():
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def reproduce(
    experiment: str,
    out: str | Path,
    *,
    preset: str = "cpu",
    rows: Sequence[str] | None = None,
    seeds: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    dataset: str | None = None,
    data_root: str | Path | None = None,
    attack: str = "pgd",
    epsilons: Sequence[float] | None = None,
    test_images: int | None = None,
    device: str | None = None,
    progress: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Train and evaluate the chosen rows unless they are finished, and write results, tables, figures, report.

    Args:
        experiment: one of :data:`~pyro_avae.experiments.paper_experiments.EXPERIMENTS`.
        out: the folder; see :class:`~pyro_avae.experiments.reproduction.Reproduction`.
        preset: one of :data:`~pyro_avae.experiments.presets.PRESETS`.
        rows: groups or rows; by default all.
        seeds: how many, by default the preset's.
        seed: the first.
        steps: of each run, by default the preset's.
        dataset: by default the experiment's.
        data_root: folder of the data sets.
        attack: PGD alone, or AutoAttack beside it.
        epsilons: L∞ radii, by default the experiment's.
        test_images: how many are attacked, by default the preset's number.
        device: where everything runs.
        progress: say on stderr what is being done.
        command: what was called, for the record.

    Returns:
        The content of ``results.json``.

    Raises:
        InputError: an option out of range, another run in a folder, or, when all else is done, rows that failed.
    """
    task = _reproduction(
        experiment,
        out=user_path(out),
        preset=preset,
        seeds=seeds,
        seed=seed,
        steps=steps,
        dataset=dataset,
        data_root=data_root,
        attack=attack,
        epsilons=epsilons,
        test_images=test_images,
        device=device,
        command=command,
    )
    runs = task.chosen(rows)
    say = _say if progress else _silent
    with stage_bars(enabled=progress) as stages:
        done = task.work(runs, say, show_training=progress and sys.stderr.isatty(), stages=stages)
    document = task.write()
    if done or not task.report.exists():
        say("writing the report")
        task.write_report(document)
    _tell(task, len(runs), done)
    if task.failed:
        named = ", ".join(f"{one['row']} (seed {one['seed']})" for one in task.failed)
        raise InputError(f"failed: {named}; the first one: {task.failed[0]['error']}")
    return document


def _reproduction(
    name: str,
    *,
    out: Path,
    preset: str,
    seeds: int | None,
    seed: int,
    steps: int | None,
    dataset: str | None,
    data_root: str | Path | None,
    attack: str,
    epsilons: Sequence[float] | None,
    test_images: int | None,
    device: str | None,
    command: str,
) -> Reproduction:
    """What the options say, checked."""
    if name not in EXPERIMENTS:
        raise InputError(f"table: expected one of {', '.join([*EXPERIMENTS, *_OTHERS])}, got {shown_value(name)}")
    experiment = EXPERIMENTS[name]
    size = _look_up(PRESETS, preset, "--preset")
    images = dataset if dataset is not None else experiment.datasets[0]
    if images not in experiment.datasets:
        raise InputError(f"--dataset: expected {' or '.join(experiment.datasets)}, got {shown_value(images)}")
    root = None if data_root is None else str(user_path(data_root))
    settings = {**size.settings_for(name), **experiment.settings, "dataset": images, "data_root": root}
    evaluation = {
        **_EVALUATION,
        **size.evaluation_for(name),
        "epsilons": tuple(experiment.epsilons if epsilons is None else epsilons),
        "attack": attack,
        **({} if test_images is None else {"limit": test_images}),
    }
    _check(evaluation)
    count = size.seeds if seeds is None else seeds
    return _KINDS.get(name, Reproduction)(
        name=name,
        experiment=experiment,
        dataset=images,
        preset_name=preset,
        preset=size,
        out=out,
        seeds=range(seed, seed + count),
        settings=settings if steps is None else {**settings, "steps": steps},
        evaluation=evaluation,
        device=as_device(device or default_device()),
        command=command,
        same_steps=steps is not None,
    )


def _check(evaluation: dict[str, Any]) -> None:
    """Refuse now what the evaluation would refuse after hours of training."""
    unused: dict[str, Any] = {
        "epsilons_l2": (),
        "masking_epsilon": 0.5,
        "representation": "mean",
        "tasks": None,
        "batch_size": 500,
    }
    EvaluationSettings(**unused, **evaluation, seed=0, progress=None)


def _look_up(table: Any, name: str, what: str) -> Any:
    if name not in table:
        raise InputError(f"{what}: expected one of {', '.join(table)}, got {shown_value(name)}")
    return table[name]


def _tell(task: Reproduction, runs: int, done: int) -> None:
    """Where everything is."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{runs} runs, {runs - done} of them finished before", markup=False)
    for name in ("results.json", "table.md", *FIGURES, "report.html"):
        if (task.out / name).exists():
            console.print(f"written to {shown(task.out / name)}", markup=False)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _silent(text: str) -> None:
    """Nothing."""
