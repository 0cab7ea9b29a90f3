"""``pyro-avae evaluate``: attacks and measures a trained run, and writes ``RUN/evaluation.json``."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pyro_avae.data import load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError
from pyro_avae.evaluation import ATTACKS, BALLS, LINF, REPRESENTATIONS, evaluate
from pyro_avae.evaluation.ball import check_radii
from pyro_avae.experiments.evaluation_table import evaluation_table
from pyro_avae.experiments.further import add_further_arguments, check_further, further_measures
from pyro_avae.experiments.options import COUNT, reader
from pyro_avae.experiments.stage_bars import stage_bars
from pyro_avae.experiments.triples import add_trust, load_trusted
from pyro_avae.paths import shown
from pyro_avae.runs.kinds import Integer, Number
from pyro_avae.runs.loading import LoadedRun
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.stored_probes import StoredProbes
from pyro_avae.runs.trust import Trust

__all__ = ["add_arguments", "run", "write_evaluation"]

_RADIUS = Number("a number of at least 0", lambda v: v >= 0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a trained run")
    parser.add_argument(
        "--epsilons",
        type=reader("--epsilons", _RADIUS),
        nargs="+",
        default=[0.0, 0.1, 0.2],
        metavar="NUMBER",
        help="radii of the attack, pixels in [0, 1] (default: 0 0.1 0.2)",
    )
    parser.add_argument(
        "--norm", default="linf", metavar="NAME", help=f"of --epsilons: {' or '.join(BALLS)} (default: linf)"
    )
    parser.add_argument(
        "--epsilons-l2",
        type=reader("--epsilons-l2", _RADIUS),
        nargs="+",
        default=[],
        metavar="NUMBER",
        help="L2 radii, attacked beside the L-infinity radii (default: none)",
    )
    parser.add_argument(
        "--attack", default="pgd", metavar="NAME", help=f"{', '.join(ATTACKS)}; PGD runs with each (default: pgd)"
    )
    parser.add_argument(
        "--transfer-from",
        type=Path,
        default=None,
        metavar="RUN",
        help="the folder of another run on the same data; images made against it are tried on this one",
    )
    parser.add_argument(
        "--representation",
        default="mean",
        metavar="NAME",
        help=f"what of the posterior the probe sees: {' or '.join(REPRESENTATIONS)} (default: mean)",
    )
    parser.add_argument("--tasks", nargs="+", default=None, metavar="NAME", help="evaluate these tasks (default: all)")
    count = Integer(1, 10**6)
    parser.add_argument("--steps", type=reader("--steps", count), default=40, metavar="N", help="of PGD (default: 40)")
    parser.add_argument(
        "--restarts", type=reader("--restarts", count), default=4, metavar="N", help="of PGD (default: 4)"
    )
    parser.add_argument(
        "--limit", type=reader("--limit", COUNT), default=None, metavar="N", help="attack the first N test images only"
    )
    parser.add_argument("--data-root", default=None, metavar="DIR", help="default: the one stored in the run")
    parser.add_argument(
        "--seed", type=reader("--seed", Integer(0, 2**32 - 1)), default=0, metavar="N", help="of attacks and estimates"
    )
    add_further_arguments(parser)
    add_trust(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Evaluate; returns the exit status."""
    device = as_device(args.device or default_device())
    epsilons, epsilons_l2 = _radii(args)
    folder = RunFolder(args.run)
    loaded = load_trusted(folder.path, device=device, trust=args.trust)
    check_further(args, loaded.config.dataset)
    root = args.data_root if args.data_root is not None else loaded.config.data_root
    data = load_dataset(loaded.config.dataset, root=root, device=device)
    other = None if args.transfer_from is None else _source(args.transfer_from, loaded, device, args.trust)
    with stage_bars(enabled=not args.no_progress) as report:
        result: dict[str, Any] = evaluate(
            loaded.model,  # type: ignore[arg-type]  # a user's own pair has to have what evaluation asks of it
            loaded.guide,  # type: ignore[arg-type]
            data,
            epsilons=epsilons,
            epsilons_l2=epsilons_l2,
            attack=args.attack,
            transfer_from=None if other is None else (other.model, other.guide),  # type: ignore[arg-type]
            representation=args.representation,
            tasks=args.tasks,
            steps=args.steps,
            restarts=args.restarts,
            limit=args.limit,
            seed=args.seed,
            fit=StoredProbes(folder.probes),
            progress=report,
        )
        model: Any = loaded.model
        guide: Any = loaded.guide
        result |= further_measures(args, model, guide, data, epsilons=epsilons, report=report)
    if other is not None:
        result["attack"]["transfer"]["from"] = {"run": str(args.transfer_from), **_origin(other)}
    document = write_evaluation(folder, loaded, result)
    Console().print(evaluation_table(document))
    print(f"written to {shown(folder.evaluation)}")
    return 0


def _radii(args: argparse.Namespace) -> tuple[list[float], list[float]]:
    """The L∞ radii and the L2 radii."""
    if args.norm not in BALLS:
        raise InputError(f"--norm: expected {' or '.join(BALLS)}, got {args.norm!r}")
    if BALLS[args.norm] is LINF:
        check_radii("--epsilons", args.epsilons, LINF)
        return args.epsilons, args.epsilons_l2
    if args.latent_attack:
        raise InputError(
            "--latent-attack: its radii are L-infinity radii; leave out --norm l2, use --epsilons-l2 for both"
        )
    if args.epsilons_l2:
        raise InputError("--epsilons-l2: expected beside --norm linf, got it beside --norm l2; give one list of radii")
    return [0.0], args.epsilons  # the clean accuracy is that of every norm


def _source(path: Path, loaded: LoadedRun, device: torch.device, trust: Trust) -> LoadedRun:
    """The run that the attacks are made against, which has to see the same images."""
    folder = RunFolder(path)
    source = load_trusted(folder.path, device=device, trust=trust)
    if source.config.dataset != loaded.config.dataset:
        raise InputError(
            f"--transfer-from: expected a run on {loaded.config.dataset}, as the one that is evaluated, "
            f"got one on {source.config.dataset} in {shown(folder.path)}"
        )
    return source


def _origin(loaded: LoadedRun) -> dict[str, Any]:
    """Which run it is."""
    config = loaded.config
    return {"method": config.method, "dataset": config.dataset, "seed": config.seed, "steps": loaded.step}


def write_evaluation(folder: RunFolder, loaded: LoadedRun, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``evaluation.json``, what was measured behind what was trained, and return its content."""
    config = loaded.config
    document = {
        **_origin(loaded),
        **result,
        "settings": config.to_json(),
        "training_seconds": loaded.seconds,
    }
    folder.write_evaluation(document)
    return document
