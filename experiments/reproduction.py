"""One reproduction in one folder: what is to be run, what is finished, and what is written of it."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pyro_avae.data import ImageData, load_dataset
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Features, classifier_features, inception_features
from pyro_avae.evaluation.evaluate import Progress
from pyro_avae.experiments.markdown import markdown
from pyro_avae.experiments.paper_experiments import Experiment
from pyro_avae.experiments.presets import Preset
from pyro_avae.experiments.reproduction_report import write_reproduction_report
from pyro_avae.experiments.results import machine, results_rows, versions
from pyro_avae.experiments.results_figures import write_figures
from pyro_avae.experiments.results_tables import explained, tables
from pyro_avae.experiments.row_runs import RowRun, row_run
from pyro_avae.experiments.rows import Row
from pyro_avae.report import ExtraTable
from pyro_avae.runs.files import write_atomically, write_json

__all__ = ["Reproduction"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reproduction:
    """The rows of an experiment on some seeds, in a folder.

    ::

        OUT/<row>/seed-<s>/    a run folder each
        OUT/results.json       every finished row, the paper's beside it; whole at any time
        OUT/table.md           the same as tables
        OUT/curves.svg         accuracy over the radius; rho.svg and ablation.svg, where there are rows enough
        OUT/report.html        the same with curves and pictures

    Attributes:
        name: of the experiment.
        experiment: it.
        dataset: what it is run on.
        preset_name: of the preset.
        preset: it.
        out: the folder.
        seeds: of the runs.
        settings: of every run, those of the preset included.
        evaluation: options of :func:`~pyro_avae.evaluation.evaluate`.
        device: where everything runs.
        command: what was called, for the record.
        same_steps: whether every method trains as many steps, whatever the preset says.
        failed: rows whose numbers stopped being finite.
    """

    name: str
    experiment: Experiment
    dataset: str
    preset_name: str
    preset: Preset
    out: Path
    seeds: Sequence[int]
    settings: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    device: torch.device
    command: str
    same_steps: bool = False
    failed: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def runs(self) -> list[RowRun]:
        """Every row on every seed, all rows of one seed first."""
        return [
            row_run(
                row,
                seed,
                out=self.out,
                settings=self._settings_of(row),
                evaluation=self.evaluation,
                samples=self.preset.samples,
            )
            for seed in self.seeds
            for row in self.experiment.rows
        ]

    def _settings_of(self, row: Row) -> dict[str, Any]:
        """The common settings, with the steps that the preset gives the row's method."""
        steps = self.settings["steps"]
        return {**self.settings, "steps": steps if self.same_steps else self.preset.steps_for(row.method, steps)}

    def chosen(self, names: Sequence[str] | None) -> list[RowRun]:
        """The runs of the chosen rows, each in a folder that is its own or empty.

        Raises:
            InputError: no such row; another run in a folder.
        """
        rows = {row.name for row in self.experiment.chosen(names)}
        runs = [run for run in self.runs if run.row.name in rows]
        for run in runs:
            run.check()
        return runs

    @cached_property
    def data(self) -> ImageData:
        """The images, with the labels of the experiment's tasks."""
        data = load_dataset(
            self.dataset, root=self.settings.get("data_root"), device=self.device, limit=self.preset.limit
        )
        return _with_tasks(data, self.experiment.tasks)

    @cached_property
    def features(self) -> Features:
        """What the Fréchet distance is measured in, one for all rows."""
        if self.preset.inception:
            try:
                return inception_features()
            except InputError as error:
                log.info("%s", error)
        return classifier_features(self.data, task=self.experiment.fid_task, **self.preset.features)

    def work(
        self, runs: Sequence[RowRun], say: Callable[[str], None], *, show_training: bool, stages: Progress | None
    ) -> int:
        """Train and evaluate what is not finished, and write the results after each; returns how many had to be run.

        A run whose numbers stop being finite is noted in ``failed`` and passed over.
        """
        todo = [run for run in runs if run.evaluated() is None]
        if todo:
            self.out.mkdir(parents=True, exist_ok=True)
            self.report.unlink(missing_ok=True)  # one of fewer rows would look finished
            _ = self.data  # data that cannot be had are no row's failure
        for number, run in enumerate(todo, start=1):
            title = f"[{number}/{len(todo)}] {run.row.name}, seed {run.settings.seed}"
            try:
                for stage in self._stages(run, show_training=show_training, stages=stages):
                    say(f"{title}: {stage}")
            except (FloatingPointError, InputError) as error:
                self.failed.append({"row": run.row.name, "seed": run.settings.seed, "error": str(error)})
                say(f"{title}: failed: {error}")
            self.write()
        return len(todo)

    def _stages(self, run: RowRun, *, show_training: bool, stages: Progress | None) -> Iterator[str]:
        """Yields what is about to be done, and does it."""
        if not run.trained():
            yield f"training {run.settings.steps} steps"
            run.train(self.data, device=self.device, progress=show_training)
        yield "evaluating"
        self.measure(run, stages)

    def measure(self, run: RowRun, progress: Progress | None) -> None:
        """Measure a trained run, and write its ``evaluation.json``."""
        run.evaluate(self.data, self.features, device=self.device, progress=progress)

    @property
    def report(self) -> Path:
        """The HTML file."""
        return self.out / "report.html"

    def write(self) -> dict[str, Any]:
        """Write ``results.json``, ``table.md`` and the figures of what is finished; returns the first one's content."""
        document = self.document()
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(self.out / "results.json", document)
        page = markdown(f"{self.name}, preset {self.preset_name}", *self.page(document))
        write_atomically(self.out / "table.md", page.encode())
        write_figures(document, self.out)
        return document

    def page(self, document: Mapping[str, Any]) -> tuple[Sequence[str], Sequence[ExtraTable]]:
        """Paragraphs and tables of ``table.md``."""
        return explained(document), tables(document)

    def results(self) -> list[dict[str, Any]]:
        """The rows of ``results.json``."""
        return results_rows(self.experiment, self.dataset, self.runs)

    def document(self) -> dict[str, Any]:
        """The content of ``results.json``."""
        return {
            "experiment": self.name,
            "dataset": self.dataset,
            "preset": self.preset_name,
            "rows": self.results(),
            "failed": self.failed,
            "evaluation": {name: list(v) if isinstance(v, tuple) else v for name, v in self.evaluation.items()},
            "versions": versions(),
            "machine": machine(self.device),
            "command": self.command,
        }

    def write_report(self, document: Mapping[str, Any]) -> Path | None:
        """Write ``report.html`` with the pictures of the first seed; None where no row of the table is finished."""
        first = [run for run in self.runs if run.settings.seed == self.seeds[0] and run.evaluated() is not None]
        return write_reproduction_report(document, first, self.data, self.report, device=str(self.device))


def _with_tasks(data: ImageData, tasks: Sequence[str] | None) -> ImageData:
    """The data with some of its tasks only."""
    if tasks is None:
        return data
    names = {task: data.class_names[task] for task in tasks}
    return ImageData(data.name, data.train, data.test, names)
