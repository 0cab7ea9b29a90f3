"""One row on one seed: a run folder that is trained and evaluated unless it is already."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pyro_avae.data import ImageData
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Features, evaluate, fid
from pyro_avae.evaluation.evaluate import Progress
from pyro_avae.evaluation.reencoding import reencoding_error
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.evaluate import write_evaluation
from pyro_avae.experiments.methods import METHODS, builder_of
from pyro_avae.experiments.options import option
from pyro_avae.experiments.rows import Row
from pyro_avae.experiments.train import train_run
from pyro_avae.paths import shown
from pyro_avae.report.evaluation_file import read_evaluation
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.runs.loading import LoadedRun, load_run
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.stored_probes import StoredProbes
from pyro_avae.training.sources import NoData

__all__ = ["RowRun", "row_run"]

#: The key of ``evaluation.json`` that says how it was made.
_MADE_WITH = "reproduce"


@dataclass(frozen=True)
class RowRun:
    """A row on a seed.

    Attributes:
        row: the row.
        settings: of the run.
        folder: of the run, ``OUT/<name>/seed-<seed>``.
        evaluation: options of :func:`~pyro_avae.evaluation.evaluate`, without the seed.
        samples: that the Fréchet distance is measured with.
    """

    row: Row
    settings: Settings
    folder: RunFolder
    evaluation: Mapping[str, Any]
    samples: int

    def difference(self) -> str | None:
        """The first setting that the run in the folder has otherwise; None where it is this run, or none at all."""
        if not self.folder.config.is_file():
            return None
        # Where OUT lies makes no other run: the run started from is beside this one.
        stored = replace(self.folder.read_settings(), start_from=self.settings.start_from)
        return stored.first_difference(self.settings)

    def check(self) -> None:
        """Refuse a folder with another run in it.

        Raises:
            InputError: there is one.
        """
        different = self.difference()
        if different is not None:
            there = getattr(self.folder.read_settings(), different)
            raise InputError(
                f"{option(different)}: the run in {shown(self.folder.path)} has {there!r}, this call wants"
                f" {getattr(self.settings, different)!r}; give another --out, or remove that folder"
            )

    def trained(self) -> bool:
        """Whether its last step is saved."""
        if not self.folder.config.is_file() or self.difference() is not None:
            return False
        checkpoint = newest_checkpoint(self.folder.checkpoints)
        return checkpoint is not None and checkpoint.step >= self.settings.steps

    def evaluated(self) -> dict[str, Any] | None:
        """Its evaluation, where it is of all steps and was made as this call would make it."""
        if not self.folder.evaluation.is_file() or not self.trained():
            return None
        try:
            document = read_evaluation(self.folder.evaluation)
        except InputError:
            return None
        finished = document.get("steps") == self.settings.steps and document.get(_MADE_WITH) == self._made_with()
        return document if finished else None

    def train(self, data: ImageData, *, device: torch.device, progress: bool) -> None:
        """Train it, or go on with it.

        Raises:
            InputError: as :func:`~pyro_avae.experiments.train.train_run`.
            FloatingPointError: the loss stopped being finite.
        """
        method = METHODS[self.settings.method]
        train_run(
            self.settings,
            data if method.needs_data else NoData(),
            self.folder,
            device=device,
            resume=not self.folder.is_empty(),
            progress=progress,
        )

    def evaluate(self, data: ImageData, features: Features, *, device: torch.device, progress: Progress | None) -> None:
        """Attack and measure it, and write its ``evaluation.json``."""
        loaded = load_run(self.folder.path, device=device)
        model: Any = loaded.model
        guide: Any = loaded.guide
        seed = self.settings.seed
        probes = StoredProbes(self.folder.probes)
        measured = evaluate(model, guide, data, **self.evaluation, seed=seed, fit=probes, progress=progress)
        x, _ = data.test.fixed_batch(torch.arange(min(measured["num_test_images"], len(data.test), 1000)))
        measured["reencoding_error"] = reencoding_error(model, guide, x)
        measured["fid"] = _distance(model, data, features, samples=self.samples, seed=seed)
        self.record(loaded, measured)

    def record(self, loaded: LoadedRun, measured: Mapping[str, Any]) -> None:
        """Write what was measured as its ``evaluation.json``."""
        write_evaluation(self.folder, loaded, {**measured, _MADE_WITH: self._made_with()})

    def _made_with(self) -> dict[str, Any]:
        options = {name: list(v) if isinstance(v, tuple | list) else v for name, v in self.evaluation.items()}
        return {**options, "seed": self.settings.seed, "fid_samples": self.samples}


def row_run(
    row: Row,
    seed: int,
    *,
    out: Path,
    settings: Mapping[str, Any],
    evaluation: Mapping[str, Any],
    samples: int,
) -> RowRun:
    """The run of a row on a seed, its settings the common ones that its method has a use for, then its own.

    Raises:
        InputError: a setting that is not allowed.
    """
    method = METHODS[row.method]
    common = {name: value for name, value in settings.items() if name not in method.unused}
    start = {} if row.start_from is None else {"start_from": str(_path(out, row.start_from, seed))}
    given = {**common, "method": row.method, "seed": seed, **row.overrides, **start}
    made = replace(settings_for(given), builder=builder_of(row.method))
    return RowRun(row, made, RunFolder(_path(out, row.name, seed)), evaluation, samples)


def _path(out: Path, label: str, seed: int) -> Path:
    return out / label / f"seed-{seed}"


def _distance(model: Any, data: ImageData, features: Features, *, samples: int, seed: int) -> dict[str, Any]:
    """The Fréchet distance; a model whose samples are not finite has none, and the reason stands in its place."""
    try:
        return fid(model, data, features=features, num_samples=samples, seed=seed)
    except InputError as error:
        return {"fid": None, "fid_features": features.name, "reason": str(error)}
