"""What ``pyro-avae reproduce disentanglement`` writes: ``results.json``, ``table.md`` and ``curves.svg``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_avae.experiments.disentanglement_rows import PRESETS, PUBLISHED, ROWS
from pyro_avae.experiments.markdown import markdown
from pyro_avae.experiments.results import summary
from pyro_avae.experiments.row_runs import RowRun
from pyro_avae.report import ExtraTable
from pyro_avae.report.style import COLORS, Picture, dress, legend, line_style, new_figure, svg_picture
from pyro_avae.runs.files import write_atomically, write_json

__all__ = ["measures_figure", "results_rows", "tables", "write_results"]

_MEASURES = {"mig": "local MIG", "modularity": "local modularity"}
_QUALITY = {
    "active_units": ("latents in use", 1),
    "mse_per_pixel": ("MSE per pixel", 5),
    "kl": ("KL, nats", 1),
    "seconds_per_step": ("s a step", 3),
}
_MISSING = "–"

#: Steps and seeds of the published rows.
_PUBLISHED_RUNS = (str(PRESETS["full"].settings["steps"]), str(PRESETS["full"].seeds))

Document = Mapping[str, Any]


def results_rows(runs: Sequence[RowRun]) -> list[dict[str, Any]]:
    """The rows of which at least one seed is measured, published numbers beside ours."""
    rows = []
    for row in ROWS:
        mine = [run for run in runs if run.row.name == row.name]
        done = {run.settings.seed: document for run in mine if (document := run.evaluated()) is not None}
        if done:
            rows.append(
                {
                    "row": row.name,
                    "label": row.label,
                    "method": row.method,
                    "settings": mine[0].settings.to_json(),
                    "paper": PUBLISHED.get(row.name),
                    "ours": _ours(done),
                }
            )
    return rows


def _ours(documents: Mapping[int, Document]) -> dict[str, Any]:
    """One row's numbers; ``documents`` by seed."""
    every = list(documents.values())
    local = [one["disentanglement"]["local"] for one in every]
    return {
        "seeds": list(documents),
        "steps": every[0]["steps"],
        **{
            measure: {rho: summary([one[rho][measure]["mean"] for one in local]) for rho in local[0]}
            for measure in _MEASURES
        },
        "over_clusters": {
            measure: {rho: summary([one[rho][measure]["standard_error"] for one in local]) for rho in local[0]}
            for measure in _MEASURES
        },
        "active_units": summary([one["active_units"] for one in every]),
        "mse_per_pixel": summary([one["mse"] for one in every]),
        "kl": summary([_kl(one) for one in every]),
        "seconds_per_step": summary([one["training_seconds"] / one["steps"] for one in every]),
    }


def _kl(document: Document) -> float | None:
    """KL(q(z|x) ‖ p(z)) in nats per image."""
    value = document["bound"].get("z")
    return None if value is None else -value


def tables(document: Document) -> list[ExtraTable]:
    """A table a measure, published rows in italics, and one of what else was measured."""
    found = [_table(document, measure, name) for measure, name in _MEASURES.items()]
    cells = [
        [row["label"], *(_number(row["ours"][key], digits) for key, (_, digits) in _QUALITY.items())]
        for row in document["rows"]
    ]
    return [*found, ExtraTable("Ours, on test images.", ["row", *(name for name, _ in _QUALITY.values())], cells)]


def _table(document: Document, measure: str, name: str) -> ExtraTable:
    rhos = list(document["rows"][0]["ours"][measure]) if document["rows"] else []
    cells: list[list[str]] = []
    published = []
    for row in document["rows"]:
        theirs = (row["paper"] or {}).get(measure)
        if theirs:
            published.append(len(cells))
            cells.append([f"{row['label']}, published", *(_value(theirs.get(rho)) for rho in rhos), *_PUBLISHED_RUNS])
        ours = row["ours"]
        numbers = [_number(ours[measure][rho], 3) for rho in rhos]
        cells.append([f"{row['label']}, ours", *numbers, str(ours["steps"]), str(len(ours["seeds"]))])
    headings = ["row", *(f"ρ = {float(rho):g}" for rho in rhos), "steps", "seeds"]
    return ExtraTable(f"{name[0].upper()}{name[1:]}, higher is better.", headings, cells, published)


def _number(measured: Mapping[str, Any] | None, digits: int) -> str:
    if measured is None:
        return _MISSING
    error = measured["standard_error"]
    return f"{measured['mean']:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _value(number: float | None) -> str:
    return _MISSING if number is None else f"{number:g}"


def measures_figure(document: Document) -> Picture | None:
    """Both measures over ρ, ours as lines, the published as hollow marks."""
    rows = document["rows"][: len(COLORS)]
    if not rows:
        return None
    figure, axes = new_figure(1, len(_MEASURES), width=4.6 * len(_MEASURES), height=3.2)
    for axis, (measure, name) in zip(axes, _MEASURES.items(), strict=True):
        for place, row in enumerate(rows):
            style = line_style(place)
            ours = {float(rho): found["mean"] for rho, found in row["ours"][measure].items() if found is not None}
            axis.plot(list(ours), list(ours.values()), label=row["label"], linewidth=1.6, **style)
            theirs = {float(rho): value for rho, value in (row["paper"] or {}).get(measure, {}).items()}
            hollow = {"marker": style["marker"], "color": style["color"], "markerfacecolor": "none"}
            axis.plot(list(theirs), list(theirs.values()), linestyle="none", markersize=8, **hollow)
        dress(axis, title=f"{name} (hollow: published)", xlabel="ρ")
        axis.set_ylim(bottom=0)
    lines = axes[0].get_lines()[::2]
    legend(figure, lines, [row["label"] for row in rows])
    return svg_picture(figure, "Local MIG and modularity over ρ; the table has the numbers.")


def write_results(document: Document, folder: Path) -> list[Path]:
    """Write the files; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in ("results.json", "table.md", "curves.svg")]
    write_json(paths[0], document)
    page = markdown(f"disentanglement, preset {document['preset']}", _explained(document), tables(document))
    write_atomically(paths[1], page.encode())
    picture = measures_figure(document)
    if picture is None:
        return paths[:2]
    write_atomically(paths[2], picture.content)
    return paths


def _explained(document: Document) -> list[str]:
    sizes = document["evaluation"]
    words = [
        f"Data {document['dataset']}, preset {document['preset']}: {sizes['clusters']} centroids with"
        f" {sizes['samples']} images each, five bins (published: 20 with 10000).",
        "The published numbers are of 300,000 batches of 64 at Adam 1e-4, ten seeds, read off the authors' figures.",
    ]
    few = {row["ours"]["steps"] for row in document["rows"] if row["ours"]["steps"] < PRESETS["full"].settings["steps"]}
    if few:
        words.append(f"**Ours are of {max(few)} steps: far shorter. They do not test the published ones.**")
    return words
