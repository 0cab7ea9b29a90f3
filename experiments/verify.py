"""The command ``pyro-avae verify``: every estimator against its exact value, and the theorems, as one table."""

import argparse
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.experiments.cases import Case, cases
from pyro_avae.experiments.options import reader
from pyro_avae.experiments.theorems import Identity, theorems
from pyro_avae.linear_gaussian import verify_bound
from pyro_avae.runs.kinds import Integer

__all__ = ["add_arguments", "check_cases", "print_checks", "run"]


class CheckedCase(NamedTuple):
    """What a Monte Carlo row found."""

    name: str
    exact: float
    estimate: float
    max_z: float
    threshold: float
    passed: bool


def check_case(case: Case, *, num_samples: int, seed: int) -> CheckedCase:
    """Draw a pair and data from the seed, and hold loss and gradients against Monte Carlo."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, guide = (module.double() for module in case.build(case))
        x = torch.randn(16, case.data_dim, dtype=torch.float64)
    check = verify_bound(model, guide, AVAE_ELBO(), x, num_samples=num_samples, seed=seed)
    loss = check.rows[0]
    return CheckedCase(case.name, loss.exact, loss.estimate, check.max_z, check.threshold, check.passed)


def check_cases(*, num_samples: int = 300, seed: int = 0) -> Iterator[CheckedCase]:
    """Check every case in turn."""
    for case in cases():
        yield check_case(case, num_samples=num_samples, seed=seed)


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
    return print_checks(num_samples=args.num_samples, seed=args.seed, progress=not args.no_progress)


def print_checks(*, num_samples: int = 300, seed: int = 0, progress: bool = True) -> int:
    """Print the table of all checks.

    Args:
        num_samples: Monte Carlo losses drawn for each pair.
        seed: of the pairs, the data and the noise.
        progress: show a progress bar.

    Returns:
        0 if every row passed, 1 otherwise.
    """
    start = time.perf_counter()
    console = Console()
    total = len(list(cases()))
    found = check_cases(num_samples=num_samples, seed=seed)
    checked = list(track(found, total=total, console=console, disable=not progress))
    identities = theorems(seed=seed)
    console.print(_case_table(checked, num_samples))
    console.print(_identity_table(identities))
    rows: list[CheckedCase | Identity] = [*checked, *identities]
    failed = [row.name for row in rows if not row.passed]
    number = len(rows)
    console.print(f"{number - len(failed)} of {number} rows pass ({time.perf_counter() - start:.0f} s)")
    for name in failed:
        console.print(f"FAILED: {name}", style="bold red")
    return 1 if failed else 0


def _case_table(rows: list[CheckedCase], num_samples: int) -> Table:
    return _table(
        f"Loss and every gradient: exact against {num_samples} Monte Carlo samples",
        ("pair", "exact loss", "Monte Carlo", "largest |z|", "allowed"),
        [
            ([r.name, f"{r.exact:.4f}", f"{r.estimate:.4f}", f"{r.max_z:.2f}", f"{r.threshold:.2f}"], r.passed)
            for r in rows
        ],
    )


def _identity_table(rows: list[Identity]) -> Table:
    return _table(
        "Theorems and known defects: read off the programs against the closed form",
        ("statement", "programs", "closed form", "difference", "allowed"),
        [
            ([r.name, f"{r.found:.6g}", f"{r.expected:.6g}", f"{r.difference:.1e}", f"{r.allowed:.0e}"], r.passed)
            for r in rows
        ],
    )


def _table(title: str, headings: Sequence[str], rows: Sequence[tuple[list[str], bool]]) -> Table:
    """Names to the left, numbers to the right, the verdict last."""
    table = Table(title=title)
    for column, heading in enumerate((*headings, "")):
        table.add_column(heading, justify="right" if column else "left")
    for cells, passed in rows:
        table.add_row(*cells, "pass" if passed else "FAIL")
    return table
