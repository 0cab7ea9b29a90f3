"""The evaluations of several runs as one table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

__all__ = ["comparison_table"]


def comparison_table(evaluations: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    """Accuracies under attack by task and method, then errors, bound and likelihood.

    Args:
        evaluations: contents of ``evaluation.json``, all of one data set.
        title: heading of the table.
    """
    epsilons = list(dict.fromkeys(e for one in evaluations for task in one["tasks"].values() for e in task["accuracy"]))
    table = Table(title=title)
    table.add_column("")
    table.add_column("")
    for one in evaluations:
        table.add_column(str(one["method"]), justify="right")
    for task in evaluations[0]["tasks"]:
        for place, epsilon in enumerate(epsilons):
            values = [one["tasks"].get(task, {}).get("accuracy", {}).get(epsilon) for one in evaluations]
            table.add_row(
                f"{task}, accuracy" if place == 0 else "",
                f"ε = {float(epsilon):g}",
                *(_shown(None if value is None else 100 * value, "{:.1f} %") for value in values),
                end_section=place == len(epsilons) - 1,
            )
    for label, unit, number, form in _ROWS:
        table.add_row(label, unit, *(_shown(number(one), form) for one in evaluations))
    return table


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


_ROWS: Sequence[tuple[str, str, Any, str]] = (
    ("MSE", "per pixel", lambda one: one["mse"], "{:.5f}"),
    ("bound", "nats per image", lambda one: one["bound"]["total"], "{:.1f}"),
    ("log p(x)", "nats per image", lambda one: one["log_likelihood"], "{:.1f}"),
    ("PSIS k̂", "median", lambda one: one["psis_khat"]["median"], "{:.2f}"),
)
