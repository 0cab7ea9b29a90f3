"""Accuracy over the attack's radius, a panel a task, all runs together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_avae.report.runs import Run
from pyro_avae.report.style import Picture, dress, legend, line_style, new_figure, svg_picture

__all__ = ["robustness_curves"]

_MOST_TICKS = 8


def robustness_curves(runs: Sequence[Run]) -> Picture | None:
    """PGD's accuracies with bars of two binomial standard errors; AutoAttack's, where it ran, as hollow marks.

    None where no run was evaluated on a task.
    """
    panels = list(dict.fromkeys((run.dataset, task) for run in runs for task in run.tasks))
    if not panels:
        return None
    several = len({dataset for dataset, _ in panels}) > 1
    columns = min(3 if len(panels) > 4 else 2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = new_figure(rows, columns, width=4.6 * columns, height=3.0 * rows + 0.4, sharey=True)
    handles: dict[int, Any] = {}
    for axis, (dataset, task) in zip(axes, panels, strict=False):
        for number, run in enumerate(runs):
            if run.dataset == dataset and task in run.tasks:
                handles.setdefault(number, _draw(axis, run, task, number))
        _chance(axis, [run.tasks[task] for run in runs if run.dataset == dataset and task in run.tasks])
        dress(
            axis,
            title=f"{dataset}: {task}" if several else task,
            xlabel="radius ε of the L∞ ball (pixels in [0, 1])",
            ylabel="accuracy, %",
        )
        axis.set_ylim(-3, 103)
        _mark_radii(axis, [run.tasks[task] for run in runs if run.dataset == dataset and task in run.tasks])
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    legend(figure, list(handles.values()), [runs[number].label for number in handles])
    return svg_picture(figure, _alt(runs, panels))


def _draw(axis: Any, run: Run, task: str, number: int) -> Any:
    """One run's curve; returns what stands for it in the legend."""
    images = max(1, int((run.evaluation or {}).get("num_test_images", 1)))
    style = line_style(number)
    radii, values = _curve(run.tasks[task]["accuracy"])
    bars = 2 * 100 * np.sqrt(values / 100 * (1 - values / 100) / images)
    drawn = axis.errorbar(radii, values, yerr=bars, linewidth=1.6, markersize=5, capsize=2.5, **style)
    other = run.tasks[task].get("accuracy_autoattack")
    if other:
        hollow = {**style, "linestyle": ":", "markerfacecolor": "white"}
        axis.plot(*_curve(other), linewidth=1.2, markersize=6, **hollow)
    return drawn


def _curve(accuracy: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Radii in increasing order, accuracies in per cent."""
    points = sorted((float(radius), 100 * value) for radius, value in accuracy.items())
    array = np.asarray(points, dtype=np.float64)
    return array[:, 0], array[:, 1]


def _mark_radii(axis: Any, tasks: Sequence[Mapping[str, Any]]) -> None:
    """Ticks at the radii that were attacked, as long as they can be told apart."""
    radii = sorted({float(radius) for task in tasks for radius in task["accuracy"]})
    if len(radii) <= _MOST_TICKS:
        axis.set_xticks(radii, [f"{radius:g}" for radius in radii])


def _chance(axis: Any, tasks: Sequence[Mapping[str, Any]]) -> None:
    """A line where always saying the most frequent class would be."""
    shares = [task["majority"] for task in tasks if isinstance(task.get("majority"), int | float)]
    if shares:
        axis.axhline(100 * max(shares), color="#9aa3ad", linewidth=1, linestyle=(0, (2, 2)), zorder=1)


def _alt(runs: Sequence[Run], panels: Sequence[tuple[str, str]]) -> str:
    parts = []
    for dataset, task in panels:
        for run in runs:
            if run.dataset == dataset and task in run.tasks:
                points = sorted(run.tasks[task]["accuracy"].items(), key=lambda item: float(item[0]))
                listed = ", ".join(f"{100 * value:.1f} % at {radius}" for radius, value in points)
                parts.append(f"{task}, {run.label}: {listed}")
    return f"Accuracy under attack over the radius. {'; '.join(parts)}."
