"""The figures of ``results.json``: accuracy over the radius, over ρ, and of the ablation, made of its numbers alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pyro_avae.experiments.results_tables import CORNERS, members, place, variant_name
from pyro_avae.experiments.rows import ABLATION, SWEEP, TABLE
from pyro_avae.report.ablation import Variant, ablation_bars
from pyro_avae.report.radius_curves import RadiusCurve, radius_curves
from pyro_avae.report.style import COLORS, Picture
from pyro_avae.report.sweep_curves import sweep_curves
from pyro_avae.runs.files import write_atomically

__all__ = ["FIGURES", "ablation_figure", "accuracy_figure", "main_rows", "sweep_figure", "write_figures"]

#: With fewer rows than this there is nothing to see that the table does not say.
_FEWEST = 3

Document = Mapping[str, Any]
Row = Mapping[str, Any]
_Item = TypeVar("_Item")


def main_rows(rows: Sequence[_Item]) -> Sequence[_Item]:
    """The first rows of the table: as many as have a colour of their own."""
    return rows[: len(COLORS)]


def accuracy_figure(document: Document) -> Picture | None:
    """Accuracy under PGD over its radius, the paper's as hollow marks; with bars of a standard error over seeds."""
    rows = main_rows(members(document, TABLE))
    curves = [RadiusCurve(row["label"], _means(row), _errors(row), _published(row)) for row in rows]
    return radius_curves(curves, majority=_majority(rows), beside="the paper's", joined=False)


def sweep_figure(document: Document) -> Picture | None:
    """Accuracy over ρ, a line a radius."""
    rows = members(document, SWEEP)
    if len(rows) < _FEWEST:
        return None
    points = {row["settings"]["rho"]: _means(row) for row in rows}
    alt = "Accuracy under attack over ρ; the table has the numbers."
    return sweep_curves(points, xlabel="ρ", alt=alt, majority=_majority(rows))


def ablation_figure(document: Document) -> Picture | None:
    """Accuracies of the AVAE's variants, a bar a radius."""
    rows = sorted(members(document, ABLATION), key=place(ABLATION))
    if len(rows) < _FEWEST:
        return None
    variants = [Variant(variant_name(row, ABLATION), _means(row)) for row in rows]
    return ablation_bars(variants, ylabel=CORNERS[ABLATION], majority=_majority(rows))


#: Names of the files, and what draws each.
FIGURES = {"curves.svg": accuracy_figure, "rho.svg": sweep_figure, "ablation.svg": ablation_figure}


def write_figures(document: Document, folder: Path) -> list[Path]:
    """Write the figures that there are rows for and remove those that there are none for; returns what was written."""
    written = []
    pictures = {folder / name: draw(document) for name, draw in FIGURES.items()}
    for path, picture in pictures.items():
        if picture is None:
            path.unlink(missing_ok=True)  # one of other rows would look like these'
        else:
            write_atomically(path, picture.content)
            written.append(path)
    return written


def _means(row: Row) -> dict[str, dict[str, float]]:
    """Mean accuracies by task and radius."""
    return _numbers(row, "mean")


def _errors(row: Row) -> dict[str, dict[str, float]]:
    """Standard errors over seeds, where there are several."""
    return _numbers(row, "standard_error")


def _numbers(row: Row, key: str) -> dict[str, dict[str, float]]:
    return {
        task: {radius: found[key] for radius, found in values.items() if found is not None and found[key] is not None}
        for task, values in row["ours"]["accuracy"].items()
    }


def _published(row: Row) -> Mapping[str, Mapping[str, float]]:
    paper = row["paper"]
    return {} if paper is None else paper["accuracy"]


def _majority(rows: Sequence[Row]) -> dict[str, float]:
    """Share of the most frequent class by task; the test images are the same for all rows."""
    return {task: share for row in rows for task, share in row["ours"]["majority"].items()}
