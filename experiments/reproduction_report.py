"""The report of a reproduction: the paper's rows beside ours, sweep and ablation, then what every report has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_avae.data import ImageData
from pyro_avae.experiments.results_figures import ablation_figure, accuracy_figure, main_rows, sweep_figure
from pyro_avae.experiments.results_tables import (
    autoattack_table,
    balanced_table,
    comparison,
    explained,
    members,
    variant_table,
)
from pyro_avae.experiments.row_runs import RowRun
from pyro_avae.experiments.rows import ABLATION, SWEEP, TABLE
from pyro_avae.report import Extra, Run, write_report
from pyro_avae.report.measure_curves import measure_curves
from pyro_avae.runs.loading import load

__all__ = ["write_reproduction_report"]

_CURVES = (
    "Accuracy under PGD over its radius, hollow the paper's: the table's first rows, which stand a little beside each"
    " other, so that none hides another."
)

Document = Mapping[str, Any]


def write_reproduction_report(
    document: Document, runs: Sequence[RowRun], data: ImageData, out: Path, *, device: str
) -> Path | None:
    """Write the page; None where no row of the table is finished.

    Args:
        document: the content of ``results.json``.
        runs: the finished runs of one seed, in the table's order.
        data: what they were trained on.
        out: the HTML file.
        device: where the pairs run.
    """
    pictured = main_rows([run for run in runs if TABLE in run.row.groups])
    if not pictured:
        return None

    def pair(run: Run) -> tuple[Any, Any, ImageData]:
        model, guide, _ = load(run.path, device=device)
        return model, guide, data

    return write_report(
        [run.folder.path for run in pictured],
        out,
        title=f"The Autoencoding VAE on {document['dataset']}: the paper's tables and ours",
        labels=[run.row.label for run in pictured],
        loader=pair,
        device=device,
        extras=[*_comparisons(document), *_sweep(document), *_ablation(document)],
    )


def _comparisons(document: Document) -> list[Extra]:
    words = [
        *explained(document),
        f"Run on {document['machine']['gpu'] or document['machine']['cpu']}. The pictures and curves further down are"
        " those of one seed.",
    ]
    further = {"Under AutoAttack": autoattack_table(document), "Balanced accuracy": balanced_table(document)}
    return [
        Extra("The paper's rows beside ours", words, comparison(document), accuracy_figure(document), _CURVES),
        *(Extra(heading, (), table) for heading, table in further.items() if table is not None),
    ]


def _sweep(document: Document) -> list[Extra]:
    rows = members(document, SWEEP)
    if len(rows) < 2:
        return []
    measures = {
        label: {row["settings"]["rho"]: row["ours"][key]["mean"] for row in rows if row["ours"][key] is not None}
        for label, key in (
            ("E KL(q(z′|x̃) ‖ p(z′|z)), nats", "consistency_kl"),
            ("re-encoding error", "reencoding_error"),
        )
    }
    words = [
        "The re-encoding error is the distance from an image's encoding to that of its reconstruction, relative to the"
        " spread of encodings: 0 where the pair autoencodes."
    ]
    return [
        Extra("Sweep over ρ", (), variant_table(document, SWEEP), sweep_figure(document)),
        Extra("Consistency over ρ", words, None, measure_curves(measures, xlabel="ρ")),
    ]


def _ablation(document: Document) -> list[Extra]:
    if len(members(document, ABLATION)) < 2:
        return []
    return [Extra("Ablation of the AVAE", (), variant_table(document, ABLATION), ablation_figure(document))]
