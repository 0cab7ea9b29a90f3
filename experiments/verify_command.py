"""``pyro-avae verify``: the options of the table in :mod:`pyro_avae.experiments.verify`."""

import argparse

from pyro_avae.errors import InputError
from pyro_avae.experiments import verify
from pyro_avae.experiments.options import reader
from pyro_avae.runs.kinds import Integer

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--num-samples",
        type=reader("--num-samples", Integer(10, 10**7)),
        default=300,
        metavar="N",
        help="Monte Carlo samples of each bound (default: 300)",
    )
    parser.add_argument("--device", default="cpu", help="cpu, which is where exact float64 is (default: cpu)")
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Verify; returns the exit status."""
    if args.device != "cpu":
        raise InputError(f"--device: expected cpu, the exact checks run there in float64, got {args.device!r}")
    return verify.run(num_samples=args.num_samples, seed=args.seed, progress=not args.no_progress)
