"""Numbers of any unit over a setting that was swept, a panel each."""

from collections.abc import Mapping

from pyro_avae.report.style import Picture, dress, line_style, new_figure, svg_picture

__all__ = ["measure_curves"]


def measure_curves(measures: Mapping[str, Mapping[float, float]], *, xlabel: str) -> Picture | None:
    """One curve a measure; the values of the setting stand at equal distances, in increasing order.

    Args:
        measures: name, with its unit, to value of the setting to number.
        xlabel: name of the setting.

    Returns:
        The picture, None where no measure has a number.

    Example:
        >>> measure_curves({"error": {0.0: 0.4, 0.9: 0.1}}, xlabel="ρ").alt
        'error over ρ: 0.4 at 0, 0.1 at 0.9.'
        >>> measure_curves({"error": {}}, xlabel="ρ") is None
        True
    """
    drawn = {name: dict(sorted(numbers.items())) for name, numbers in measures.items() if numbers}
    if not drawn:
        return None
    values = sorted({value for numbers in drawn.values() for value in numbers})
    figure, axes = new_figure(1, len(drawn), width=4.6 * len(drawn), height=2.9)
    for axis, (name, numbers) in zip(axes, drawn.items(), strict=True):
        axis.plot([values.index(value) for value in numbers], list(numbers.values()), linewidth=1.6, **line_style(0))
        dress(axis, title=name, xlabel=f"{xlabel} (values at equal distances)")
        axis.set_xticks(range(len(values)), [f"{value:g}" for value in values])
        axis.set_ylim(bottom=0)
    return svg_picture(figure, " ".join(_told(name, numbers, xlabel) for name, numbers in drawn.items()))


def _told(name: str, numbers: Mapping[float, float], xlabel: str) -> str:
    return f"{name} over {xlabel}: {', '.join(f'{number:.3g} at {value:g}' for value, number in numbers.items())}."
