"""Accuracy over a setting that was swept, a panel a task, a line a radius."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pyro_avae.errors import InputError, shown_value
from pyro_avae.report.style import Picture, dress, legend, line_style, majority_line, new_figure, svg_picture

__all__ = ["sweep_curves"]

#: More labels than this under one panel are turned to keep them apart.
_LEVEL_LABELS = 9


def sweep_curves(
    points: Mapping[float, Mapping[str, Mapping[str, float]]],
    *,
    xlabel: str,
    alt: str,
    majority: Mapping[str, float] | None = None,
) -> Picture | None:
    """Accuracies over the values of a setting, say rho.

    The values stand at equal distances in increasing order, whatever their differences, so that 0.975, 0.99 and 0.999
    can be told apart; the axis says so. A line is broken where a value has no accuracy.

    Args:
        points: value of the setting to task to radius, as ``evaluation.json`` writes it, to accuracy in [0, 1].
        xlabel: name of the setting.
        alt: what the picture shows, for who cannot see it.
        majority: share of the most frequent class by task, drawn dashed.

    Returns:
        The picture, or None where there are fewer than two values or no accuracies.

    Raises:
        InputError: a value or radius that is no finite number, or an accuracy outside [0, 1].

    Example:
        >>> accuracies = {0.0: {"digit": {"0.0": 0.97, "0.1": 0.16}}, 0.975: {"digit": {"0.0": 0.96, "0.1": 0.82}}}
        >>> sweep_curves(accuracies, xlabel="ρ", alt="Accuracy over ρ.").alt
        'Accuracy over ρ.'
    """
    _check(points)
    values = sorted(points)
    tasks = list(dict.fromkeys(task for value in values for task in points[value]))
    radii = sorted({r for at in points.values() for accuracy in at.values() for r in accuracy}, key=float)
    if len(values) < 2 or not radii:
        return None
    columns = min(3 if len(tasks) > 4 else 2, len(tasks))
    rows = math.ceil(len(tasks) / columns)
    figure, axes = new_figure(rows, columns, width=4.6 * columns, height=3.0 * rows + 0.4, sharey=True)
    handles: dict[str, Any] = {}
    levels: list[Any] = []
    for axis, task in zip(axes, tasks, strict=False):
        for number, radius in enumerate(radii):
            accuracies = np.array([100 * points[value].get(task, {}).get(radius, math.nan) for value in values])
            if not np.isnan(accuracies).all():
                style = line_style(number)
                (handles[radius],) = axis.plot(np.arange(len(values)), accuracies, linewidth=1.6, markersize=5, **style)
        if majority is not None and task in majority:
            levels.append(majority_line(axis, majority[task]))
        dress(axis, title=task, xlabel=f"{xlabel} (values at equal distances)", ylabel="accuracy, %")
        axis.set_ylim(-3, 103)
        _mark_values(axis, values)
    for axis in axes[len(tasks) :]:
        axis.set_visible(False)
    entries = [(handles[radius], f"ε = {float(radius):g}") for radius in radii if radius in handles]
    entries += [(level, "majority class") for level in levels[:1]]
    legend(figure, [handle for handle, _ in entries], [label for _, label in entries])
    return svg_picture(figure, alt)


def _mark_values(axis: Any, values: list[float]) -> None:
    """Every value under its place, in as many digits as it has."""
    labels = [np.format_float_positional(value, trim="-") for value in values]
    axis.set_xticks(range(len(values)), labels, rotation=45 if len(values) > _LEVEL_LABELS else 0)
    # Panels are alike, also where a task lacks the first or the last value.
    axis.set_xlim(-0.3, len(values) - 0.7)


def _check(points: Mapping[float, Mapping[str, Mapping[str, float]]]) -> None:
    for value, tasks in points.items():
        if not math.isfinite(value):
            raise InputError(f"points: expected finite values of the setting, got {shown_value(value)}")
        for task, accuracies in tasks.items():
            for radius, accuracy in accuracies.items():
                where = f"points: {value:g}: {shown_value(task)}"
                if not _is_radius(radius):
                    raise InputError(f"{where}: expected radii that are numbers, got {shown_value(radius)}")
                if not 0 <= accuracy <= 1:
                    raise InputError(
                        f"{where}: expected an accuracy in [0, 1], got {shown_value(accuracy)} at {radius}"
                    )


def _is_radius(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
