"""``pyro-avae reproduce disentanglement``: the JL1-VAE beside the β-VAE on the three dots, by local MIG and modularity.

Source: Rhodes and Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*, NeurIPS
2021 (arXiv 2106.02923).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from pyro_avae.data import THREE_DOTS, ImageData, load_dataset
from pyro_avae.devices import as_device, default_device
from pyro_avae.errors import InputError, shown_value
from pyro_avae.evaluation import disentanglement, evaluate
from pyro_avae.experiments.disentanglement_results import results_rows, write_results
from pyro_avae.experiments.disentanglement_rows import PRESETS, ROWS, WARM_UP
from pyro_avae.experiments.evaluate import write_evaluation
from pyro_avae.experiments.presets import Preset
from pyro_avae.experiments.results import machine, versions
from pyro_avae.experiments.row_runs import RowRun, row_run
from pyro_avae.paths import shown, user_path
from pyro_avae.runs.loading import load_run

__all__ = ["DATASET", "Measured", "reproduce_disentanglement"]

DATASET = "three-dots"
_IMAGE_SHAPE = (1, 64, 64)

#: Options of the measure; the others are those of :func:`~pyro_avae.evaluation.evaluate`.
_OF_THE_MEASURE = ("clusters", "samples")


@dataclass(frozen=True)
class Measured(RowRun):
    """A row on a seed that is measured by its latents, not attacked."""

    def measure(self, data: ImageData, *, device: torch.device) -> None:
        """Measure it, and write its ``evaluation.json``."""
        loaded = load_run(self.folder.path, device=device)
        model: Any = loaded.model
        guide: Any = loaded.guide
        seed = self.settings.seed
        sizes = {name: self.evaluation[name] for name in _OF_THE_MEASURE}
        other = {name: value for name, value in self.evaluation.items() if name not in _OF_THE_MEASURE}
        result = evaluate(model, guide, data, seed=seed, **other)
        result["disentanglement"] = disentanglement(guide, THREE_DOTS, seed=seed, **sizes)
        write_evaluation(self.folder, loaded, {**result, "reproduce": self._made_with()})


def reproduce_disentanglement(
    out: str | Path,
    *,
    preset: str = "cpu",
    rows: Sequence[str] | None = None,
    seeds: int | None = None,
    seed: int = 0,
    steps: int | None = None,
    device: str | None = None,
    progress: bool = False,
    command: str = "",
    **attack: Any,
) -> dict[str, Any]:
    """Train and measure the chosen rows unless they are finished, and write results, table and figure.

    Args:
        out: the folder, with ``<row>/seed-<s>/``, a run each, ``results.json``, ``table.md`` and ``curves.svg``.
        preset: one of :data:`~pyro_avae.experiments.disentanglement_rows.PRESETS`.
        rows: names of rows, by default all.
        seeds: how many, by default the preset's.
        seed: the first.
        steps: of each run, by default the preset's; β and γ rise over a third of them.
        device: where everything runs.
        progress: say on stderr what is being done.
        command: what was called, for the record.
        **attack: options of the other experiments, which have no use here: None each, or their default.

    Returns:
        The content of ``results.json``.

    Raises:
        InputError: no such preset or row, another run in a folder, an option of ``attack``.
    """
    _refuse(attack)
    if preset not in PRESETS:
        raise InputError(f"--preset: expected one of {', '.join(PRESETS)}, got {shown_value(preset)}")
    size, place = PRESETS[preset], as_device(device or default_device())
    folder = user_path(out)
    runs = _runs(size, folder, range(seed, seed + (size.seeds if seeds is None else seeds)), steps)
    chosen = [run for run in runs if rows is None or run.row.name in _known(rows)]
    for run in chosen:
        run.check()
    todo = [run for run in chosen if run.evaluated() is None]
    data = load_dataset(DATASET, device=place, limit=size.limit)
    document = _document(runs, preset, place, command)
    for number, run in enumerate(todo, start=1):
        title = f"[{number}/{len(todo)}] {run.row.name}, seed {run.settings.seed}"
        if not run.trained():
            _say(f"{title}: training {run.settings.steps} steps", progress)
            run.train(data, device=place, progress=progress and sys.stderr.isatty())
        _say(f"{title}: measuring", progress)
        run.measure(data, device=place)
        document = _document(runs, preset, place, command)
        write_results(document, folder)
    for path in write_results(document, folder):
        _say(f"written to {shown(path)}", progress)
    return document


def _runs(size: Preset, out: Path, seeds: Sequence[int], steps: int | None) -> list[Measured]:
    """Every row on every seed, all rows of one seed first."""
    common = {**size.settings_for("disentanglement"), **({} if steps is None else {"steps": steps})}
    settings = {
        **common,
        "dataset": DATASET,
        "image_shape": _IMAGE_SHAPE,
        "kl_warmup": round(WARM_UP * common["steps"]),
    }
    made = [
        row_run(row, seed, out=out, settings=settings, evaluation=size.evaluation, samples=0)
        for seed in seeds
        for row in ROWS
    ]
    return [Measured(**{field.name: getattr(run, field.name) for field in fields(run)}) for run in made]


def _known(rows: Sequence[str]) -> Sequence[str]:
    names = [row.name for row in ROWS]
    for name in rows:
        if name not in names:
            raise InputError(f"--rows: expected some of {', '.join(names)}, got {shown_value(name)}")
    return rows


def _refuse(attack: Mapping[str, Any]) -> None:
    for name, value in attack.items():
        if value not in (None, "pgd"):
            raise InputError(
                f"--{name.replace('_', '-')}: the experiment disentanglement makes its own images and attacks none;"
                " leave it out"
            )


def _document(runs: Sequence[Measured], preset: str, device: torch.device, command: str) -> dict[str, Any]:
    """The content of ``results.json``."""
    return {
        "experiment": "disentanglement",
        "dataset": DATASET,
        "preset": preset,
        "rows": results_rows(runs),
        "evaluation": dict(PRESETS[preset].evaluation),
        "versions": versions(),
        "machine": machine(device),
        "command": command,
    }


def _say(text: str, progress: bool) -> None:
    if progress:
        print(text, file=sys.stderr, flush=True)
