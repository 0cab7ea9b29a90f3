"""The picture of how cost grows: one panel a sweep, times relative to its first value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

from pyro_avae.report.style import dress, legend, line_style, new_figure

__all__ = ["Curves", "save_plot"]


@dataclass(frozen=True)
class Curves:
    """One panel.

    Attributes:
        label: of the horizontal axis.
        values: on it, rising.
        relative: times over that at the first value, by contender.
    """

    label: str
    values: Sequence[int]
    relative: Mapping[str, Sequence[float]]


def save_plot(panels: Sequence[Curves], path: Path) -> None:
    """Draw the panels side by side, both axes logarithmic, and save them as an SVG.

    The dotted line is cost in proportion to the value.
    """
    figure, all_axes = new_figure(1, len(panels), width=3.4 * len(panels), height=3.2)
    names = list(dict.fromkeys(name for panel in panels for name in panel.relative))
    lines = {}
    for panel, axes in zip(panels, all_axes, strict=True):
        dress(
            axes, title=panel.label, xlabel=panel.label, ylabel="time of a step / first" if panel is panels[0] else ""
        )
        for name, relative in panel.relative.items():
            (lines[name],) = axes.plot(panel.values, relative, markersize=4, **line_style(names.index(name)))
        proportional = [value / panel.values[0] for value in panel.values]
        (lines["in proportion"],) = axes.plot(panel.values, proportional, color="#5b6470", linestyle=":", linewidth=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        # The values themselves, not powers of two.
        axes.set_xticks(panel.values, [str(value) for value in panel.values])
        axes.yaxis.set_major_formatter("{x:g}")
    legend(figure, list(lines.values()), list(lines))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "pyro-avae"}):
        figure.savefig(path, format="svg", metadata={"Date": None})
