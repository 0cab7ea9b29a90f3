"""Exact values set beside Monte Carlo estimates, with z-scores."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from scipy import stats
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.linear_gaussian.double_precision import trainable_parameters

__all__ = ["BoundCheck", "CheckRow", "check_bound"]

#: Chance that a right estimator fails a whole table.
_FALSE_ALARM = 1e-6


class CheckRow(NamedTuple):
    """One quantity: the loss, or the entry of a parameter's gradient that is furthest off.

    Attributes:
        name: ``"loss"`` or the parameter.
        size: how many entries were compared.
        exact: the exact value, in nats (per unit of the parameter).
        estimate: the Monte Carlo mean.
        standard_error: of the estimate.
        z_score: (estimate - exact) over the standard error, rounding allowed for.
    """

    name: str
    size: int
    exact: float
    estimate: float
    standard_error: float
    z_score: float


@dataclass(frozen=True)
class BoundCheck:
    """The table of :func:`~pyro_avae.linear_gaussian.verify_bound`.

    Attributes:
        rows: the loss first, then each parameter's gradient.
        num_samples: how many losses were drawn.
    """

    rows: tuple[CheckRow, ...]
    num_samples: int

    @property
    def threshold(self) -> float:
        """The largest \\|z\\| to expect: Student's t at a false alarm of 1e-6 for the whole table."""
        comparisons = sum(row.size for row in self.rows)
        return float(stats.t.isf(_FALSE_ALARM / (2 * comparisons), self.num_samples - 1))

    @property
    def max_z(self) -> float:
        """The largest \\|z\\| of all rows."""
        return max(abs(row.z_score) for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether every z-score is within :attr:`threshold`."""
        return all(abs(row.z_score) <= self.threshold for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        head = f"{'':{width}}  {'exact':>14} {'Monte Carlo':>14} {'std. error':>11} {'z':>7}"
        lines = [
            f"{row.name:{width}}  {row.exact:14.6f} {row.estimate:14.6f} {row.standard_error:11.2e} {row.z_score:7.2f}"
            for row in self.rows
        ]
        verdict = f"{'passed' if self.passed else 'FAILED'}: |z| <= {self.threshold:.2f}, {self.num_samples} samples"
        legend = "of each gradient, the entry that is furthest off in units of its standard error"
        return "\n".join([head, *lines, legend, verdict])


def check_bound(
    loss: Callable[[], Tensor],
    exact: Callable[[], Tensor],
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *,
    num_samples: int,
    seed: int,
) -> BoundCheck:
    """Compare ``exact()`` and its gradients with ``num_samples`` calls of ``loss()``; see ``verify_bound``."""
    if num_samples < 2:
        raise InputError(f"num_samples: expected at least 2, got {num_samples}")
    with _seeded(seed):
        parameters = trainable_parameters(loss, model, guide)
        truth = _values_and_gradients(exact(), parameters)
        moments = {name: _Moments(value) for name, value in truth.items()}
        for _ in range(num_samples):
            for name, value in _values_and_gradients(loss(), parameters).items():
                moments[name].add(value)
    return BoundCheck(tuple(_row(name, truth[name], m) for name, m in moments.items()), num_samples)


def _values_and_gradients(loss: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    values = {"loss": loss.detach()}
    gradients: tuple[Tensor | None, ...]
    if loss.requires_grad and parameters:
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    else:
        gradients = (None,) * len(parameters)
    for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
        values[name] = torch.zeros_like(parameter) if gradient is None else gradient
    return values


class _Moments:
    """Running mean and variance in float64 (Welford), and the magnitude that rounding acts on."""

    def __init__(self, like: Tensor) -> None:
        self.count = 0
        self.mean = torch.zeros_like(like, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)
        self.magnitude = torch.zeros((), dtype=torch.float64, device=like.device)
        self.eps = 0.0

    def add(self, value: Tensor) -> None:
        self.count += 1
        self.eps = torch.finfo(value.dtype).eps
        value = value.double()
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)
        self.magnitude = torch.maximum(self.magnitude, value.abs().max())

    @property
    def standard_error(self) -> Tensor:
        return (self.squares / (self.count - 1) / self.count).sqrt()


def _row(name: str, exact: Tensor, moments: _Moments) -> CheckRow:
    """The entry furthest off, in units of its standard error and of the rounding of sums of this magnitude."""
    exact = exact.double()
    rounding = 64 * moments.eps * moments.magnitude.clamp_min(1)
    z = (moments.mean - exact) / (moments.standard_error.square() + rounding.square()).sqrt()
    worst = int(z.abs().nan_to_num(nan=torch.inf).argmax())
    picked = (t.flatten()[worst].item() for t in (exact, moments.mean, moments.standard_error, z))
    value, estimate, error, score = picked
    return CheckRow(name, exact.numel(), value, estimate, error, score)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from one seed inside, and leave the caller's random state as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
