"""``pyro-avae reproduce density``: negative log-likelihoods of binary images beside published ones."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pyro_avae.evaluation import evaluate, mean_and_standard_error
from pyro_avae.evaluation.evaluate import Progress
from pyro_avae.experiments.density_rows import PUBLISHED_NLL
from pyro_avae.experiments.density_tables import density_table, density_words
from pyro_avae.experiments.reproduction import Reproduction
from pyro_avae.experiments.results import summary
from pyro_avae.experiments.row_runs import RowRun
from pyro_avae.report import Extra, ExtraTable, write_report
from pyro_avae.report.runs import Run
from pyro_avae.runs.loading import load, load_run
from pyro_avae.sites import AUX, SMOOTH, aux_sites

__all__ = ["DensityReproduction"]

Document = Mapping[str, Any]

#: The row that others are compared with, image by image.
_REFERENCE = "vae"


class DensityReproduction(Reproduction):
    """A reproduction whose rows are not attacked: it measures densities, and what the latents carry."""

    def measure(self, run: RowRun, progress: Progress | None) -> None:
        loaded = load_run(run.folder.path, device=self.device)
        model: Any = loaded.model
        guide: Any = loaded.guide
        seed = run.settings.seed
        run.record(loaded, evaluate(model, guide, self.data, **self.evaluation, tasks=(), seed=seed, progress=progress))

    def document(self) -> dict[str, Any]:
        published = PUBLISHED_NLL.get(self.dataset, ())
        return {**super().document(), "published": [one.to_json() for one in published]}

    def results(self) -> list[dict[str, Any]]:
        done: dict[str, list[tuple[RowRun, Document]]] = {}
        for run in self.runs:
            document = run.evaluated()
            if document is not None:
                done.setdefault(run.row.name, []).append((run, document))
        reference = {run.settings.seed: document for run, document in done.get(_REFERENCE, [])}
        return [
            {
                "method": row.method,
                "row": row.name,
                "label": row.label,
                "groups": list(row.groups),
                "settings": done[row.name][0][0].settings.to_json(),
                "paper": None,
                "ours": _ours(done[row.name], reference),
            }
            for row in self.experiment.rows
            if row.name in done
        ]

    def page(self, document: Document) -> tuple[Sequence[str], Sequence[ExtraTable]]:
        table = density_table(document)
        return density_words(document), [] if table is None else [table]

    def write_report(self, document: Document) -> Path | None:
        runs = [run for run in self.runs if run.settings.seed == self.seeds[0] and run.evaluated() is not None]
        if not runs:
            return None

        def pair(run: Run) -> tuple[Any, Any, Any]:
            model, guide, _ = load(run.path, device=str(self.device))
            return model, guide, self.data

        words, (table,) = self.page(document)
        return write_report(
            [run.folder.path for run in runs],
            self.report,
            title=f"Densities of {self.dataset}",
            labels=[run.row.label for run in runs],
            loader=pair,
            device=str(self.device),
            extras=[Extra("Negative log-likelihood", words, table)],
        )


def _ours(done: Sequence[tuple[RowRun, Document]], reference: Mapping[int, Document]) -> dict[str, Any]:
    """One row's numbers, over seeds; ``reference`` is the VAE's evaluation by seed."""
    every = [document for _, document in done]
    differences = [_paired(one, reference.get(run.settings.seed)) for run, one in done]

    def over(number: Callable[[Document], float | None]) -> dict[str, Any] | None:
        return summary([number(one) for one in every])

    return {
        "seeds": [run.settings.seed for run, _ in done],
        "steps": every[0]["steps"],
        # No tasks: what draws accuracies finds none.
        "accuracy": {},
        "majority": {},
        "nll": over(lambda one: _minus(one["log_likelihood"])),
        "nll_error_over_images": over(lambda one: one["log_likelihood_standard_error"]),
        "nll_difference": summary([mean for mean, _ in differences]),
        "nll_difference_error": summary([error for _, error in differences]),
        "elbo": over(_elbo),
        "kl": over(lambda one: _difference(one["bound"]["x"], _elbo(one))),
        "active_units": over(lambda one: one["active_units"]),
        "mutual_information": over(lambda one: one["mutual_information"]["mean"]),
        "information_at_most": every[0]["mutual_information"]["at_most"],
        "psis_khat": over(lambda one: one["psis_khat"]["median"]),
        "importance_sampling": every[0]["importance_sampling"],
        "seconds_per_step": over(lambda one: one["training_seconds"] / one["steps"]),
    }


def _paired(one: Document, other: Document | None) -> tuple[float | None, float | None]:
    """How much larger the negative log-likelihood is than another's on the same images, and its standard error."""
    if other is None or other is one:
        return None, None
    pairs = zip(one["log_likelihood_by_image"], other["log_likelihood_by_image"], strict=True)
    differences = [b - a for a, b in pairs if a is not None and b is not None]
    if not differences:
        return None, None
    found = mean_and_standard_error(differences)
    return found["mean"], found["standard_error"]


def _elbo(document: Document) -> float | None:
    """The bound of the plain pair: without the terms of further encodings."""
    bound = document["bound"]
    further = {z_aux for branch in (AUX, SMOOTH) for _, z_aux in aux_sites(len(bound), branch)}
    terms = [value for site, value in bound.items() if site != "total" and site not in further]
    return None if any(value is None for value in terms) else float(sum(terms))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
