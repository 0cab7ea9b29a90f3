"""``pyro-avae report``: one HTML file of one or more run folders."""

import argparse
import sys
from pathlib import Path

from pyro_avae.devices import as_device
from pyro_avae.experiments.triples import add_trust, make_importable
from pyro_avae.paths import shown
from pyro_avae.report import read_runs, write_report
from pyro_avae.report.influence_section import influence_sections
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="the folder of a run; the first is compared with"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")
    parser.add_argument("--title", default="Trained pairs, compared", metavar="TEXT", help="heading of the report")
    parser.add_argument("--device", default="cpu", help="where the pairs run for the pictures (default: cpu)")
    add_trust(parser)
    parser.add_argument("--no-progress", action="store_true", help="show no progress")


def run(args: argparse.Namespace) -> int:
    """Write the report; returns the exit status."""
    device = str(as_device(args.device))
    runs = read_runs(args.runs)
    for one in runs:
        builder = one.config.get("builder")
        if isinstance(builder, str):  # anything else is no run's, and becomes a gap
            make_importable(builder, trust=args.trust, where=f"{shown(RunFolder(one.path).config)}: builder")
    progress = None if args.no_progress else lambda stage: print(f"making {stage}", file=sys.stderr)
    extras = influence_sections(runs)
    target = write_report(
        args.runs, args.out, title=args.title, device=device, trust=args.trust, progress=progress, extras=extras
    )
    for one in runs:
        for gap in one.gaps:
            print(f"{one.label}: {gap}", file=sys.stderr)
    print(f"written to {shown(target)}")
    return 0
