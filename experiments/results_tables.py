"""The tables of ``results.json``: the paper's rows beside ours, the sweep over ρ, the ablation; and as Markdown."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyro_avae.experiments.paper import gaussian_nll
from pyro_avae.experiments.results import NLL
from pyro_avae.experiments.rows import ABLATION, SWEEP, TABLE
from pyro_avae.report import ExtraTable

__all__ = [
    "CORNERS",
    "autoattack_table",
    "balanced_table",
    "comparison",
    "explained",
    "members",
    "number",
    "place",
    "tables",
    "variant_name",
    "variant_table",
]

Document = Mapping[str, Any]
Row = Mapping[str, Any]

_MISSING = "–"

#: What is measured beside the accuracies: heading, key in ``ours``, factor and digits.
_MEASURES: Sequence[tuple[str, str, int]] = (("SSE", "sse", 2), ("FID", "fid", 2))
_CONSISTENCY: Sequence[tuple[str, str, int]] = (
    ("consistency KL, nats", "consistency_kl", 2),
    ("re-encoding error", "reencoding_error", 3),
    ("SSE", "sse", 2),
)


def members(document: Document, group: str) -> list[Row]:
    """The rows of a group."""
    return [row for row in document["rows"] if group in row["groups"]]


def tables(document: Document) -> list[ExtraTable]:
    """Every table that has rows."""
    ours = [comparison(document), autoattack_table(document), balanced_table(document)]
    variants = [variant_table(document, group) for group in (SWEEP, ABLATION)]
    return [table for table in (*ours, *variants) if table is not None]


def comparison(document: Document) -> ExtraTable | None:
    """The paper's rows, each beside ours, then ours alone."""
    rows = members(document, TABLE)
    if not rows:
        return None
    columns = _columns(rows, "accuracy")
    cells: list[list[str]] = []
    published = []
    for row in rows:
        if row["paper"] is not None:
            published.append(len(cells))
            cells.append(_published(row, columns))
        cells.append(_ours(row, columns))
    headings = [
        "row",
        *(_heading(*column) for column in columns),
        "time",
        "NLL",
        "SSE",
        _fid_heading(rows),
        "steps",
        "seeds",
    ]
    caption = f"The paper's rows in italics, ours below them: accuracy in % by task and radius. {_spread(rows)}"
    return ExtraTable(caption, headings, cells, published)


def balanced_table(document: Document) -> ExtraTable | None:
    """Balanced accuracies and majority classes, where a task has a class with more than half of the images."""
    rows = members(document, TABLE)
    if not any(share > 0.5 for row in rows for share in row["ours"]["majority"].values()):
        return None
    shares = ", ".join(f"{task} {_percent(share)}" for task, share in rows[0]["ours"]["majority"].items())
    caption = f"Balanced accuracy in %, the mean of the classes' recalls. Share of the most frequent class: {shares}."
    return _of_kind(rows, "balanced_accuracy", caption)


def autoattack_table(document: Document) -> ExtraTable | None:
    """Accuracies under AutoAttack, where it ran."""
    rows = [row for row in members(document, TABLE) if "accuracy_autoattack" in row["ours"]]
    return _of_kind(rows, "accuracy_autoattack", f"Accuracy in % under AutoAttack. {_spread(rows)}") if rows else None


def _of_kind(rows: Sequence[Row], kind: str, caption: str) -> ExtraTable:
    """Our rows with one kind of accuracy."""
    columns = _columns(rows, kind)
    cells = [[row["label"], *_accuracies(row, columns, kind)] for row in rows]
    return ExtraTable(caption, ["row", *(_heading(*column) for column in columns)], cells)


def variant_table(document: Document, group: str) -> ExtraTable | None:
    """The rows of the sweep, in the order of ρ, or of the ablation."""
    rows = sorted(members(document, group), key=place(group))
    if not rows:
        return None
    columns = _columns(rows, "accuracy")
    measures = [measure for measure in _CONSISTENCY if any(row["ours"][measure[1]] for row in rows)]
    cells = [
        [
            variant_name(row, group),
            *_accuracies(row, columns),
            *(number(row["ours"][key], n) for _, key, n in measures),
        ]
        for row in rows
    ]
    headings = [CORNERS[group], *(_heading(*column) for column in columns), *(heading for heading, _, _ in measures)]
    return ExtraTable(f"{_CAPTIONS[group]} {_spread(rows)}", headings, cells)


#: What the rows of a group differ in.
CORNERS = {SWEEP: "ρ", ABLATION: "view, gradient, input"}
_CAPTIONS = {
    SWEEP: "The AVAE over ρ: accuracy in %.",
    ABLATION: "The AVAE with a sampled or a mean view, with the gradient through z or cut, without or with noise of"
    " variance 0.5 on the images that are encoded in training: accuracy in %.",
}


def variant_name(row: Row, group: str) -> str:
    """What sets the row apart in its group."""
    settings = row["settings"]
    if group == SWEEP:
        return f"{settings['rho']:g}"
    gradient = "cut" if settings["gradient"] == "cut" else "through z"
    return f"{settings['view']}, {gradient}, {'noisy' if settings['input_noise'] else 'as it is'}"


def place(group: str) -> Callable[[Row], Any]:
    """The key that puts the rows of a group in order."""
    if group == SWEEP:
        return lambda row: row["settings"]["rho"]
    return lambda row: (
        row["settings"]["view"] != "sample",
        row["settings"]["gradient"] == "cut",
        row["settings"]["input_noise"],
    )


def _columns(rows: Sequence[Row], kind: str) -> list[tuple[str, str]]:
    """Every task and radius that any row, ours or the paper's, has an accuracy at."""
    found: dict[tuple[str, str], None] = {}
    for row in rows:
        for task, values in row["ours"].get(kind, {}).items():
            found |= {(task, radius): None for radius in sorted(values, key=float)}
    return list(found)


def _heading(task: str, radius: str) -> str:
    return f"{task} {float(radius):g}"


def _published(row: Row, columns: Sequence[tuple[str, str]]) -> list[str]:
    paper = row["paper"]
    shares = [paper["accuracy"].get(task, {}).get(radius) for task, radius in columns]
    pixels = math.prod(row["settings"]["image_shape"])
    sse = _MISSING if paper["mse"] is None else f"({paper['mse'] - gaussian_nll(0.0, pixels):.1f})"
    numbers = [f"×{paper['time']:g}", *(_MISSING if n is None else f"{n:g}" for n in (paper["mse"],)), sse]
    fid = _MISSING if paper["fid"] is None else f"{paper['fid']:g} (Inception)"
    return [f"{row['label']}, the paper", *map(_percent, shares), *numbers, fid, "", ""]


def _ours(row: Row, columns: Sequence[tuple[str, str]]) -> list[str]:
    ours = row["ours"]
    name = row["label"] if row["paper"] is None else f"{row['label']}, ours"
    time = number(ours["time"], 2)
    return [
        name,
        *_accuracies(row, columns),
        time if time == _MISSING else f"×{time}",
        number(ours[NLL], 1),
        *(number(ours[key], digits) for _, key, digits in _MEASURES),
        str(ours["steps"]),
        str(len(ours["seeds"])),
    ]


def _accuracies(row: Row, columns: Sequence[tuple[str, str]], kind: str = "accuracy") -> list[str]:
    measured = row["ours"].get(kind, {})
    return [number(measured.get(task, {}).get(radius), 1, scale=100.0) for task, radius in columns]


def explained(document: Document) -> list[str]:
    """What the columns hold, a paragraph each for the attack and for the rest."""
    rows = members(document, TABLE)
    features = sorted({name for row in rows for name in row["ours"]["fid_features"]})
    attack = document["evaluation"]
    images = "all test images" if attack["limit"] is None else f"the first {attack['limit']} test images"
    return [
        f"Data {document['dataset']}, preset {document['preset']}. Accuracy of a linear probe on the posterior mean"
        f" under L∞ PGD: {attack['steps']} steps, {attack['restarts']} starts, {images}.",
        "Time: of training, the VAE's being 1. NLL: the Gaussian negative log-likelihood of an image at ν = 0.5, in"
        " nats, which is how we read what the paper calls MSE. SSE: the squared error of an image on [0, 1];"
        " in brackets what the paper's NLL leaves for it. FID: ours is measured in the features of"
        f" {'; '.join(features) or 'nothing'}, and can be compared among our rows only.",
    ]


def _fid_heading(rows: Sequence[Row]) -> str:
    """Of distances that are not in Inception's features, the heading says so."""
    names = [name for row in rows for name in row["ours"]["fid_features"]]
    return "FID" if all(name.startswith("inception") for name in names) else "FID, own features"


def _spread(rows: Sequence[Row]) -> str:
    several = any(len(row["ours"]["seeds"]) > 1 for row in rows)
    return "± one standard error over seeds." if several else "One seed."


def number(measured: Mapping[str, Any] | None, digits: int, *, scale: float = 1.0) -> str:
    """``mean ± standard error``."""
    if measured is None:
        return _MISSING
    mean = f"{scale * measured['mean']:.{digits}f}"
    error = measured["standard_error"]
    return mean if error is None else f"{mean} ± {scale * error:.{digits}f}"


def _percent(share: float | None) -> str:
    return _MISSING if share is None else f"{100 * share:.1f}"
