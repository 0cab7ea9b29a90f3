"""Run folders as the report reads them: settings, log, evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown
from pyro_avae.report.evaluation_file import read_evaluation
from pyro_avae.runs.files import read_json
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["Run", "read_run", "read_runs"]

#: Longest name of a run that still fits a table's column and a figure's legend.
_LABEL_LENGTH = 40


@dataclass(frozen=True)
class Run:
    """What one run folder says about itself.

    Attributes:
        path: the folder.
        label: its name in the report, unique among the runs of one report.
        config: ``config.json``.
        log: the rows of ``log.jsonl``, numbers only, in order of their steps.
        evaluation: ``evaluation.json``, None where the run was not evaluated.
        gaps: what is missing, each a sentence for the reader.
    """

    path: Path
    label: str
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, float]]
    evaluation: Mapping[str, Any] | None
    gaps: Sequence[str] = field(default=())

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.config.get("method", "?"))

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return str(self.config.get("dataset", "?"))

    @property
    def tasks(self) -> Mapping[str, Mapping[str, Any]]:
        """The evaluated tasks by name; empty where there are none."""
        return {} if self.evaluation is None else self.evaluation.get("tasks", {})


def read_run(path: str | Path) -> Run:
    """Read one run folder; what is not there yet becomes a gap, not an error.

    Raises:
        InputError: no ``config.json`` there, or a file that is not what it should be.
    """
    folder = RunFolder(path)
    if not folder.config.is_file():
        raise InputError(
            f"run: expected the folder of a run, as 'pyro-avae train' makes it, found no config.json in"
            f" {shown(folder.path)}"
        )
    config = read_json(folder.config)
    if not isinstance(config, dict):
        raise InputError(f"{shown(folder.config)}: expected a JSON object, got {type(config).__name__}")
    log = [_numbers(row) for row in folder.read_log()]
    evaluation = read_evaluation(folder.evaluation) if folder.evaluation.is_file() else None
    gaps = []
    if not log:
        gaps.append("No training curve: log.jsonl is missing or empty.")
    if evaluation is None:
        gaps.append(f"Not evaluated: run 'pyro-avae evaluate {shown(path)}', then build this report again.")
    return Run(folder.path, str(config.get("method", "?")), config, log, evaluation, tuple(gaps))


def read_runs(paths: Sequence[str | Path], *, labels: Sequence[str] | None = None) -> list[Run]:
    """Read run folders and give each a label of its own: the method, and the folder where methods repeat.

    Args:
        paths: the folders.
        labels: other labels, one a folder.

    Raises:
        InputError: no folder given, one given twice, not a label for each, or as :func:`read_run`.
    """
    if not paths:
        raise InputError("run: expected at least one run folder, got none")
    runs = [read_run(path) for path in paths]
    seen = Counter(run.path.resolve() for run in runs)
    for path, count in seen.items():
        if count > 1:
            raise InputError(f"run: expected each run folder once, got {shown(path)} {count} times")
    if labels is not None and len(labels) != len(runs):
        raise InputError(f"labels: expected {len(runs)}, one for each run, got {len(labels)}")
    methods = Counter(run.method for run in runs)
    labels = labels or [
        run.method if methods[run.method] == 1 else f"{run.method} ({run.path.resolve().name})" for run in runs
    ]
    repeated = Counter(labels)
    return [
        replace(run, label=_shortened(label if repeated[label] == 1 else f"#{number} {label}"))
        for number, (run, label) in enumerate(zip(runs, labels, strict=True), start=1)
    ]


def _shortened(label: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in label).strip() or "?"
    return text if len(text) <= _LABEL_LENGTH else text[: _LABEL_LENGTH - 1] + "…"


def _numbers(row: Mapping[str, object]) -> dict[str, float]:
    """What of a logged row is a number; a value that was not finite is written as null."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
