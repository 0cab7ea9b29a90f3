"""What ``pyro-avae evaluate`` measures where it is asked to: distance of samples, attacks without labels, margins."""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from pyro_avae.data import GENERATORS, ImageData
from pyro_avae.errors import InputError
from pyro_avae.evaluation import disentanglement, fid, latent_attack, robustness_margin
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.experiments.options import reader
from pyro_avae.runs.kinds import Integer, Number

__all__ = ["add_further_arguments", "check_further", "further_measures"]

Report = Callable[[str, int, int], None]

_POSITIVE = Number("a finite number above 0", lambda v: v > 0)


def add_further_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that ask for a measure, and their sizes."""
    parser.add_argument(
        "--fid",
        nargs="?",
        const="classifier",
        default=None,
        metavar="FEATURES",
        help="Frechet distance of 10,000 prior samples, in features of a classifier trained here, or of inception",
    )
    parser.add_argument(
        "--latent-attack",
        action="store_true",
        help="attack without labels: the symmetric KL between posteriors, at the L-infinity radii",
    )
    parser.add_argument(
        "--margin",
        type=reader("--margin", _POSITIVE),
        default=None,
        metavar="R",
        help="estimate the margin of r-robustness for this r, an L2 distance of reconstructions",
    )
    parser.add_argument(
        "--disentanglement",
        action="store_true",
        help=f"local and global MIG and modularity; of runs on {', '.join(GENERATORS)}",
    )
    parser.add_argument(
        "--clusters",
        type=reader("--clusters", Integer(1, 10**6)),
        default=20,
        metavar="N",
        help="neighbourhoods that --disentanglement looks at, of 10,000 images each (default: 20)",
    )
    parser.add_argument(
        "--images",
        type=reader("--images", Integer(1, 10**6)),
        default=50,
        metavar="N",
        help="test images that --latent-attack and --margin take (default: 50)",
    )


def check_further(args: argparse.Namespace, dataset: str) -> None:
    """Refuse a measure that the data set cannot be asked for.

    Raises:
        InputError: factors of variation of a data set that is not made from any.
    """
    if args.disentanglement and dataset not in GENERATORS:
        raise InputError(
            f"--disentanglement: expected a run on a data set made from known factors, {', '.join(GENERATORS)}, got one"
            f" on {dataset}"
        )


def further_measures(
    args: argparse.Namespace,
    model: Model,
    guide: Guide,
    data: ImageData,
    *,
    epsilons: list[float],
    report: Report | None,
) -> dict[str, Any]:
    """The measures that were asked for, by the key that ``evaluation.json`` has them under."""
    x = data.test.fixed_batch(torch.arange(min(args.images, len(data.test))))[0].to(device_of(guide))
    radii = [epsilon for epsilon in epsilons if epsilon > 0]
    measures: dict[str, Callable[[], Any]] = {}
    if args.fid is not None:
        measures["fid"] = lambda: fid(model, data, features=args.fid, seed=args.seed)
    if args.latent_attack and radii:
        measures["latent_attack"] = lambda: latent_attack(model, guide, x, epsilons=radii, seed=args.seed)
    if args.margin is not None:
        measures["robustness_margin"] = lambda: robustness_margin(model, guide, x, r=args.margin, seed=args.seed)
    if args.disentanglement:
        measures["disentanglement"] = lambda: disentanglement(
            guide, GENERATORS[data.name], clusters=args.clusters, seed=args.seed
        )
    found = {}
    for number, (name, measure) in enumerate(measures.items()):
        if report is not None:
            report("further measures", number, len(measures))
        found[name] = measure()
    return found
