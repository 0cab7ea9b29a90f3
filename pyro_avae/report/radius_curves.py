"""Accuracy over the attack's radius: a panel a task, a line a pair, hollow marks for what it is compared with."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from pyro_avae.report.style import Picture, dress, legend, line_style, majority_line, new_figure, svg_picture

__all__ = ["RadiusCurve", "radius_curves"]

_MOST_TICKS = 8
#: Curves stand beside each other, or those that agree would be one: by this part of the distance between radii, and
#: all together by no more than the second.
_APART, _SPREAD = 0.02, 0.2

#: Panel to radius, as ``evaluation.json`` writes it, to a share of 1.
Shares = Mapping[str, Mapping[str, float]]


class RadiusCurve(NamedTuple):
    """One line.

    Attributes:
        label: in the legend.
        accuracy: by panel and radius.
        bars: half their lengths; none where there is no number.
        beside: accuracies that are drawn hollow.
    """

    label: str
    accuracy: Shares
    bars: Shares
    beside: Shares


def radius_curves(
    curves: Sequence[RadiusCurve], *, majority: Mapping[str, float], beside: str, joined: bool
) -> Picture | None:
    """The picture, None where no curve has an accuracy.

    Args:
        curves: each keeps its colour, drawn or not.
        majority: share of the most frequent class by panel, drawn dashed.
        beside: what the hollow marks are, for the legend.
        joined: whether a dotted line goes through the hollow marks.

    Example:
        >>> curve = RadiusCurve("VAE", {"digit": {"0.0": 0.9, "0.1": 0.2}}, {}, {"digit": {"0.1": 0.1}})
        >>> radius_curves([curve], majority={"digit": 0.1}, beside="the paper's", joined=False).alt
        'Accuracy under attack over the radius. digit, VAE: 90.0 % at 0.0, 20.0 % at 0.1.'
    """
    panels = list(dict.fromkeys(panel for curve in curves for panel, values in curve.accuracy.items() if values))
    if not panels:
        return None
    columns = min(3 if len(panels) > 4 else 2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = new_figure(rows, columns, width=4.6 * columns, height=3.0 * rows + 0.4, sharey=True)
    handles: dict[int, Any] = {}
    levels: list[Any] = []
    for axis, panel in zip(axes, panels, strict=False):
        radii = sorted({radius for curve in curves for radius in _points(curve.accuracy.get(panel, {}))})
        nearest = min((b - a for a, b in itertools.pairwise(radii)), default=0.0)
        apart = min(_APART, _SPREAD / len(curves)) * nearest
        for number, curve in enumerate(curves):
            drawn = _draw(axis, curve, panel, number, shift=(number - (len(curves) - 1) / 2) * apart, joined=joined)
            if drawn is not None:
                handles[number] = drawn
        if panel in majority:
            levels.append(majority_line(axis, majority[panel]))
        dress(axis, title=panel, xlabel="radius ε of the L∞ ball (pixels in [0, 1])", ylabel="accuracy, %")
        axis.set_ylim(-3, 103)
        if len(radii) <= _MOST_TICKS:  # as long as they can be told apart
            axis.set_xticks(radii, [f"{radius:g}" for radius in radii])
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    entries = [(handle, curves[number].label) for number, handle in sorted(handles.items())]
    if any(curve.beside.get(panel) for curve in curves for panel in panels):
        entries.append((_hollow_sample(joined), beside))
    entries += [(level, "majority class") for level in levels[:1]]
    legend(figure, [handle for handle, _ in entries], [label for _, label in entries])
    return svg_picture(figure, _alt(curves, panels))


def _draw(axis: Any, curve: RadiusCurve, panel: str, number: int, *, shift: float, joined: bool) -> Any:
    """One curve's line and hollow marks; returns what stands for the line in the legend, None where there is none."""
    style, drawn = line_style(number), None
    points = _points(curve.accuracy.get(panel, {}))
    if points:
        lengths = _points(curve.bars.get(panel, {}))
        bars = [lengths.get(radius, math.nan) for radius in points] if lengths else None
        drawn = axis.errorbar(
            *_placed(points, shift), yerr=bars, linewidth=1.6, markersize=5, elinewidth=1.0, capsize=2.5, **style
        )
    hollow = _points(curve.beside.get(panel, {}))
    if hollow:
        axis.plot(*_placed(hollow, shift), **{**style, **_hollow(joined)})
    return drawn


def _placed(points: Mapping[float, float], shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the points are drawn."""
    return np.array(list(points)) + shift, np.array(list(points.values()))


def _hollow(joined: bool) -> dict[str, Any]:
    # Unfilled rather than white: a mark that lies on another leaves it visible.
    return {"linestyle": ":" if joined else "none", "linewidth": 1.2, "markersize": 7, "markerfacecolor": "none"}


def _points(shares: Mapping[str, float]) -> dict[float, float]:
    """Per cent by radius, in increasing order."""
    return dict(sorted((float(radius), 100 * share) for radius, share in shares.items()))


def _hollow_sample(joined: bool) -> Any:
    """What stands for the hollow marks in the legend, in no curve's colour."""
    from matplotlib.lines import Line2D

    return Line2D([], [], color="#5b6470", marker="o", **_hollow(joined))


def _alt(curves: Sequence[RadiusCurve], panels: Sequence[str]) -> str:
    parts = []
    for panel in panels:
        for curve in curves:
            points = sorted(curve.accuracy.get(panel, {}).items(), key=lambda item: float(item[0]))
            if points:
                listed = ", ".join(f"{100 * value:.1f} % at {radius}" for radius, value in points)
                parts.append(f"{panel}, {curve.label}: {listed}")
    return f"Accuracy under attack over the radius. {'; '.join(parts)}."
