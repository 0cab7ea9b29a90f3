"""The command ``pyro-avae verify``: every estimator against its exact value, and the theorems, as one table."""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.experiments.options import reader
from pyro_avae.experiments.theorems import Identity, theorems
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import verify_bound
from pyro_avae.models import VAE, ExtendedVAE, Gaussian
from pyro_avae.runs.kinds import Integer

__all__ = ["Case", "Pair", "add_arguments", "cases", "check_cases", "print_checks", "run"]


class Pair(NamedTuple):
    """A model and a guide of float64 parameters."""

    model: nn.Module
    guide: nn.Module


@dataclass(frozen=True)
class Case:
    """One row of Monte Carlo checks: a pair of given sizes."""

    label: str
    data_dim: int
    latent_dim: int
    build: Callable[["Case"], Pair]
    full_covariance: bool = False

    @property
    def name(self) -> str:
        """What the table calls the row."""
        covariance = "full" if self.full_covariance else "diagonal"
        return f"{self.label}, D={self.data_dim}, L={self.latent_dim}, {covariance} covariance"

    def decoder(self) -> nn.Module:
        """A linear decoder with weights of order 1, so that every term of the bound matters."""
        decoder = nn.Linear(self.latent_dim, self.data_dim)
        nn.init.normal_(decoder.weight, std=self.latent_dim**-0.5)
        return decoder

    def encoder(self) -> nn.Module:
        """A linear encoder, its covariance away from the identity."""
        encoder = LinearEncoder(self.data_dim, self.latent_dim, full_covariance=self.full_covariance)
        nn.init.normal_(encoder.log_scale, mean=-0.5, std=0.2)
        if encoder.lower is not None:
            nn.init.normal_(encoder.lower, std=0.3)
        return encoder


def _vae(case: Case) -> Pair:
    return Pair(
        VAE(case.decoder(), latent_dim=case.latent_dim, obs_variance=0.5),
        AmortizedGuide(case.encoder()),
    )


def _avae(
    view: str, gradient: str, *, num_views: int = 1, rho: str = "one", learned: bool = False
) -> Callable[[Case], Pair]:
    """Builds the AVAE pairs, which differ in these options only."""

    def build(case: Case) -> Pair:
        rhos: dict[str, float | Tensor | str] = {
            "one": 0.8,
            "per dimension": torch.linspace(-0.5, 0.9, case.latent_dim, dtype=torch.float64),
            "learned": "learned",
        }
        model = ExtendedVAE(
            case.decoder(),
            latent_dim=case.latent_dim,
            rho=rhos[rho],
            likelihood=Gaussian(obs_variance=0.5, learned=learned),
            num_views=num_views,
        )
        return Pair(model, AVAEGuide(case.encoder(), model, view=view, gradient=gradient))  # type: ignore[arg-type]

    return build


def cases() -> Iterator[Case]:
    """Every case of the table: each method at one size, then the sizes and covariances."""
    methods = {
        "VAE": _vae,
        "AVAE, sampled view, through z": _avae("sample", "through_z"),
        "AVAE, sampled view, cut": _avae("sample", "cut"),
        "AVAE, mean view, through z": _avae("mean", "through_z"),
        "AVAE, mean view, cut": _avae("mean", "cut"),
        "AVAE, rho per dimension": _avae("sample", "through_z", rho="per dimension"),
        "AVAE, rho and variance learned": _avae("sample", "through_z", rho="learned", learned=True),
        "AVAE, chain of 3, through z": _avae("sample", "through_z", num_views=3),
        "AVAE, chain of 3, cut": _avae("sample", "cut", num_views=3),
    }
    for label, build in methods.items():
        for full in (False, True):
            yield Case(label, 5, 2, build, full_covariance=full)
    for data_dim, latent_dim in ((1, 1), (2, 1), (20, 5)):
        for label in ("VAE", "AVAE, sampled view, through z"):
            for full in (False, True):
                yield Case(label, data_dim, latent_dim, methods[label], full_covariance=full)


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
