"""The numbers of ``evaluation.json``, laid out as rows."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro_avae.report.runs import Run

__all__ = ["AccuracyRow", "Cell", "accuracy_rows", "epsilons_of", "number", "percent", "quality_rows", "terms_of"]

_MISSING = "–"
# Of more digits a table has no column.
_LONG = 1e15


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        text: as printed.
        best: whether it is the highest of its column within its group of rows.
        note: a second number beside it, in small print.
    """

    text: str
    best: bool = False
    note: str = ""


@dataclass(frozen=True)
class AccuracyRow:
    """Accuracies of one run on one task, a cell per radius."""

    dataset: str
    task: str
    run: str
    cells: Sequence[Cell]
    majority: str
    first: bool
    span: int


def percent(value: float | None) -> str:
    """An accuracy in per cent.

    Example:
        >>> percent(0.9861), percent(None)
        ('98.6', '–')
    """
    return _MISSING if value is None else f"{100 * value:.1f}"


def number(value: Any, digits: int = 1) -> str:
    """A number, or a dash where there is none.

    Example:
        >>> number(-12.345, 2), number(None)
        ('−12.35', '–')
    """
    if not isinstance(value, int | float) or not abs(value) < math.inf:
        return _MISSING
    try:
        text = f"{value:.{digits}f}" if abs(value) < _LONG else f"{value:.{digits}e}"
    except OverflowError:  # a whole number beyond all floats
        return _MISSING
    # A minus that is as wide as a plus, and no sign on what rounds to zero.
    return text.replace("-", "−") if text.strip("-0.") else text.lstrip("-")


def epsilons_of(runs: Sequence[Run]) -> list[str]:
    """All radii that any run was attacked at, in increasing order."""
    radii = {epsilon for run in runs for task in run.tasks.values() for epsilon in task["accuracy"]}
    return sorted(radii, key=float)


def terms_of(runs: Sequence[Run]) -> list[str]:
    """All terms of the evaluated bounds by name, the total last."""
    terms = {term for run in runs for term in (run.evaluation or {}).get("bound", {})}
    return sorted(terms, key=lambda term: (term == "total", term))


def accuracy_rows(runs: Sequence[Run]) -> list[AccuracyRow]:
    """Task by task, run by run."""
    epsilons = epsilons_of(runs)
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        for task in run.tasks:
            groups.setdefault((run.dataset, task), []).append(run)
    rows = []
    for (dataset, task), members in groups.items():
        best = {e: _best([run.tasks[task]["accuracy"].get(e) for run in members]) for e in epsilons}
        for place, run in enumerate(members):
            cells = [_accuracy(run.tasks[task], e, best[e]) for e in epsilons]
            majority = percent(run.tasks[task].get("majority"))
            rows.append(AccuracyRow(dataset, task, run.label, cells, majority, place == 0, len(members)))
    return rows


def _best(values: Sequence[float | None]) -> float | None:
    """The highest value, None where none is higher than another."""
    known = [value for value in values if value is not None]
    return max(known) if known and max(known) > min(known) else None


def _accuracy(task: Mapping[str, Any], epsilon: str, best: float | None) -> Cell:
    value = task["accuracy"].get(epsilon)
    other = task.get("accuracy_autoattack", {}).get(epsilon)
    note = "" if other is None else f"AA {percent(other)}"
    return Cell(percent(value), best=best is not None and value == best, note=note)


def quality_rows(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Per run: squared errors, terms of the bound, log-likelihood and k̂."""
    terms = terms_of(runs)
    return [(run.label, _quality(run.evaluation, terms)) for run in runs if run.evaluation is not None]


def _quality(evaluation: Mapping[str, Any], terms: Sequence[str]) -> list[str]:
    bound, khat = evaluation.get("bound", {}), evaluation.get("psis_khat", {})
    return [
        number(evaluation.get("mse"), 5),
        number(evaluation.get("mse_255")),
        *(number(bound.get(term)) for term in terms),
        number(evaluation.get("log_likelihood")),
        number(khat.get("median"), 2),
        number(khat.get("max"), 2),
    ]
