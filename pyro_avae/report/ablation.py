"""Accuracies of variants of one method side by side: a panel a task, a group of bars a variant."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pyro_avae.report.style import COLORS, Picture, dress, legend, majority_line, new_figure, plain, svg_picture

__all__ = ["Variant", "ablation_bars"]


class Variant(NamedTuple):
    """One variant: its name, and accuracies in [0, 1] by task and radius."""

    name: str
    accuracy: Mapping[str, Mapping[str, float]]


def ablation_bars(
    variants: Sequence[Variant], *, ylabel: str = "", majority: Mapping[str, float] | None = None
) -> Picture | None:
    """Horizontal bars, one a radius; None where nothing was measured.

    Args:
        variants: from top to bottom.
        ylabel: what sets them apart.
        majority: share of the most frequent class by task, drawn dashed.

    Example:
        >>> ablation_bars([Variant("sample", {"digit": {"0.1": 0.5}})]).alt
        'Accuracy under attack of each variant. sample: digit 50.0 % at 0.1.'
        >>> ablation_bars([]) is None
        True
    """
    tasks = list(dict.fromkeys(task for variant in variants for task in variant.accuracy))
    radii = sorted({r for variant in variants for values in variant.accuracy.values() for r in values}, key=float)
    if not tasks or not radii:
        return None
    thickness = 1.0 / (len(radii) + 1)
    height = 1.3 + 0.16 * (len(radii) + 1) * len(variants)
    figure, axes = new_figure(1, len(tasks), width=2.0 + 3.4 * len(tasks), height=height, sharey=True)
    handles: list[Any] = []
    for number, radius in enumerate(radii):
        for axis, task in zip(axes, tasks, strict=True):
            shares = {p: v.accuracy[task][radius] for p, v in enumerate(variants) if radius in v.accuracy.get(task, {})}
            places = [place + (number - (len(radii) - 1) / 2) * thickness for place in shares]
            lengths = [100 * share for share in shares.values()]
            bars = axis.barh(places, lengths, height=thickness, color=COLORS[number % len(COLORS)])
        handles.append(bars)
    levels: list[Any] = []
    for axis, task in zip(axes, tasks, strict=True):
        dress(axis, title=task, xlabel="accuracy, %", ylabel=ylabel if axis is axes[0] else "")
        axis.set_xlim(0, 103)
        if majority is not None and task in majority:
            levels.append(majority_line(axis, majority[task], upright=True))
    axes[0].set_yticks(range(len(variants)), [plain(variant.name) for variant in variants])
    axes[0].invert_yaxis()
    labels = [f"ε = {float(radius):g}" for radius in radii]
    legend(figure, [*handles, *levels[:1]], [*labels, *["majority class" for _ in levels[:1]]])
    return svg_picture(figure, f"Accuracy under attack of each variant. {'; '.join(map(_told, variants))}.")


def _told(variant: Variant) -> str:
    shares = (
        f"{task} {100 * share:.1f} % at {radius}"
        for task, values in variant.accuracy.items()
        for radius, share in values.items()
    )
    return f"{variant.name}: {', '.join(shares)}"
