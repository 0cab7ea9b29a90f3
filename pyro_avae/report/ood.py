"""What ``pyro-avae ood`` wrote into a run's folder: checked, as rows of a table, as a picture, as a section."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood.metrics import METRICS, roc_curve
from pyro_avae.evaluation.ood.scores import LABELS
from pyro_avae.paths import shown
from pyro_avae.report.extras import Extra, ExtraTable
from pyro_avae.report.runs import Run
from pyro_avae.report.style import COLORS, Picture, dress, legend, new_figure, svg_picture
from pyro_avae.runs.files import read_json
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["HEADINGS", "ood_extras", "ood_picture", "ood_rows", "read_ood"]

#: Of the table's columns.
HEADINGS = ("score", "AUROC", "AUPRC", "FPR at 95 % TPR", "mean, familiar", "mean, strange")

_SIDES = ("inside", "outside")
#: Of numbers: a histogram's width is the difference of two, squared by some of matplotlib.
_LARGEST = 1e150
_COLUMNS = 4
_BINS = 40


def read_ood(path: Path) -> dict[str, Any]:
    """The content of an ``ood.json``.

    Raises:
        InputError: no JSON object, or not what ``pyro-avae ood`` writes; the file is named.
    """
    document = read_json(path)
    if not _is_complete(document):
        raise InputError(f"{shown(path)}: expected what 'pyro-avae ood' writes, got another document; run it again")
    checked: dict[str, Any] = document
    return checked


def _is_complete(document: Any) -> bool:
    if not isinstance(document, dict) or not isinstance(document.get("scores"), dict):
        return False
    if not all(isinstance(document.get(key), str) for key in ("inside", "outside")):
        return False
    absent, counts = document.get("absent"), document.get("num_images")
    if not isinstance(absent, dict) or not isinstance(counts, dict):
        return False
    return all(_is_score(score) for score in document["scores"].values())


def _is_score(score: Any) -> bool:
    """Whether every number that is used is there and can be drawn: a NaN or an infinite one cannot."""
    try:
        lists = [score["values"][side] for side in _SIDES]
        measures = [score[metric][key] for metric in METRICS for key in ("value", "low", "high")]
        numbers = [*measures, *(score["mean"][side] for side in _SIDES), *lists[0], *lists[1]]
    except (KeyError, TypeError):
        return False
    drawn = all(isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= _LARGEST for n in numbers)
    return drawn and all(isinstance(one, list) and len(one) > 0 for one in lists)


def ood_rows(document: Mapping[str, Any]) -> list[list[str]]:
    """A row a score, cells as :data:`HEADINGS`; an absent one says why."""
    rows = [
        [
            LABELS.get(name, name),
            *(_interval(score[metric]) for metric in METRICS),
            *(f"{score['mean'][side]:.4g}" for side in _SIDES),
        ]
        for name, score in document["scores"].items()
    ]
    absent = [[LABELS.get(name, name), f"absent: {why}", "", "", "", ""] for name, why in document["absent"].items()]
    return rows + absent


def _interval(measure: Mapping[str, float]) -> str:
    return f"{measure['value']:.3f} ({measure['low']:.3f} to {measure['high']:.3f})"


def ood_picture(document: Mapping[str, Any]) -> Picture:
    """Histograms of every score on both sets, and their ROC curves in one panel."""
    scores = document["scores"]
    rows = -(-(len(scores) + 1) // _COLUMNS)
    figure, axes = new_figure(rows, _COLUMNS, width=11, height=2.6 * rows)
    handles: list[Any] = []
    for number, (panel, (name, score)) in enumerate(zip(axes, scores.items(), strict=False)):
        handles = _histogram(panel, score["values"])
        dress(panel, title=LABELS.get(name, name), xlabel=f"AUROC {score['auroc']['value']:.3f}")
        panel.set_yticks([])
        color = COLORS[number % len(COLORS)]
        panel.set_title(panel.get_title(loc="left"), loc="left", fontsize=10, color=color)
        fpr, tpr = roc_curve(score["values"]["inside"], score["values"]["outside"])
        axes[len(scores)].plot(fpr, tpr, color=color, linewidth=1.4)
    last = axes[len(scores)]
    last.plot([0, 1], [0, 1], color="#6b747e", linewidth=1, linestyle=(0, (4, 3)))
    dress(last, title="ROC, in the colours of the titles", xlabel="false positives", ylabel="true positives")
    for panel in axes[len(scores) + 1 :]:
        panel.set_visible(False)
    legend(figure, handles, [str(document["inside"]), str(document["outside"])])
    return svg_picture(
        figure, f"scores of {document['inside']} and {document['outside']} as histograms, with ROC curves"
    )


def _histogram(panel: Any, values: Mapping[str, Sequence[float]]) -> list[Any]:
    """Both sets, over the range that all but two per cent of the scores lie in."""
    sides = [np.asarray(values[side], dtype=np.float64) for side in _SIDES]
    low, high = np.percentile(np.concatenate(sides), [1, 99])
    edges = np.linspace(low, high if high > low else low + 1, _BINS + 1)
    return [
        panel.hist(np.clip(side, edges[0], edges[-1]), bins=edges, density=True, alpha=0.6, color=color)[2][0]
        for side, color in zip(sides, COLORS, strict=False)
    ]


def ood_extras(runs: Sequence[Run]) -> list[Extra]:
    """A section for each run that has an ``ood.json``.

    Raises:
        InputError: as :func:`read_ood`.
    """
    return [_extra(run, read_ood(path)) for run in runs if (path := RunFolder(run.path).ood).is_file()]


def _extra(run: Run, document: Mapping[str, Any]) -> Extra:
    inside, outside = document["inside"], document["outside"]
    counts = document["num_images"]
    words = (
        f"{counts.get('inside', '?')} test images of {inside}, which it was trained on, and"
        f" {counts.get('outside', '?')} of {outside}. Every score is larger for stranger images. AUROC 0.5 is chance;"
        " below it the score takes the strange images for the familiar ones."
    )
    table = ExtraTable("In brackets bootstrap intervals of 95 %; means in nats", HEADINGS, ood_rows(document))
    caption = "Scores of both sets (the outermost bins hold what lies beyond), and their ROC curves."
    return Extra(f"{run.label}: {outside} beside {inside}", [words], table, ood_picture(document), caption)
