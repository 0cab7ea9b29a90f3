"""A run's folder: what lies where, how one is begun, and how one is gone on with."""

import json
import logging
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown, user_path
from pyro_avae.runs.checkpoints import Checkpoint, newest_checkpoint
from pyro_avae.runs.files import read_json, read_plain, write_atomically, write_json
from pyro_avae.runs.lock import LOCK, exclusive
from pyro_avae.runs.settings import Settings

__all__ = ["Row", "RunFolder"]

log = logging.getLogger(__name__)

#: One line of ``log.jsonl``: ``step``, ``loss``, each term of the bound, ...
Row = dict[str, float | None]

_MOST_STEPS = 10**12

_OURS = {
    LOCK,
    "config.json",
    ".config.json.tmp",
    "checkpoints",
    "kept",
    "log.jsonl",
    ".log.jsonl.tmp",
    "tensorboard",
    "evaluation.json",
    "influence.json",
    "influence-self.png",
    "influence-test.png",
    "probes.safetensors",
    ".probes.safetensors.tmp",
    "ood.json",
    ".ood.json.tmp",
    "ood.svg",
    ".ood.svg.tmp",
}


class RunFolder:
    """The folder of one run.

    ::

        RUN/config.json         the settings
        RUN/checkpoints/        the two newest
        RUN/kept/               parameters alone, spread over the steps
        RUN/log.jsonl           {"step": 100, "loss": ..., "x": ..., "z": ..., ...}: nats, means per image
        RUN/tensorboard/        the same as curves
        RUN/evaluation.json     written by ``pyro-avae evaluate``
        RUN/probes.safetensors  the probes that it fitted
        RUN/influence.json      written by ``pyro-avae influence``, with influence-self.png and influence-test.png
        RUN/ood.json, ood.svg   written by ``pyro-avae ood``

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = user_path(path)
        self.config = self.path / "config.json"
        self.checkpoints = self.path / "checkpoints"
        self.kept = self.path / "kept"
        self.log = self.path / "log.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.evaluation = self.path / "evaluation.json"
        self.influence = self.path / "influence.json"
        self.probes = self.path / "probes.safetensors"
        self.ood = self.path / "ood.json"
        self.ood_picture = self.path / "ood.svg"

    def begin(self) -> None:
        """Make the folder for a new run.

        Raises:
            InputError: something is in it, or it cannot be made.
        """
        if not self.is_empty():
            raise InputError(
                f"{shown(self.path)}: expected a new or empty folder, got one with files in it; give another, or"
                " --resume (resume=True) to go on with the run there"
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{shown(self.path)}: cannot be made: {error.strerror}") from error

    def resume(self, *, at: int | None = None) -> Checkpoint | None:
        """The newest intact checkpoint of the run there, or None, which the log says; what is no run is refused.

        Args:
            at: the newest up to this step.

        Raises:
            InputError: the folder holds files, but not those of a run.
        """
        if not self.is_empty() and not self.config.exists():
            foreign = sorted(entry.name for entry in self.path.iterdir() if entry.name not in _OURS)
            if foreign:
                raise InputError(f"{shown(self.path)}: no run to go on with: it has {foreign[0]!r}, but no config.json")
        checkpoint = newest_checkpoint(self.checkpoints, up_to=at)
        if checkpoint is None:
            log.warning("%s: no intact checkpoint; starting at step 0", shown(self.path))
            self.path.mkdir(parents=True, exist_ok=True)
        return checkpoint

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Where an exception ends the block before a checkpoint is there, an empty folder is so again, a new one gone.

        What a signal stops (a ``KeyboardInterrupt``) is kept, and so is everything in a folder that had files in it.

        Raises:
            InputError: as :meth:`is_empty`.
        """
        was_new, was_empty = not self.path.exists(), self.is_empty()
        try:
            yield
        except Exception:
            if was_empty and not any(self.checkpoints.glob("step-*.json")):
                with suppress(OSError):  # the error itself is what has to be told
                    self._clear(remove_folder=was_new)
            raise

    def _clear(self, *, remove_folder: bool) -> None:
        """Remove what training wrote; a file that is not ours stays, and the folder with it."""
        for path in (
            self.config,
            self.log,
            self.path / LOCK,
            *self.checkpoints.glob("step-*.safetensors"),
            *self.kept.glob("step-*"),
        ):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.tensorboard, ignore_errors=True)
        for folder in (self.checkpoints, self.kept):
            if folder.exists():
                folder.rmdir()
        if remove_folder:
            self.path.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other trainings out of the folder, which is made where there is none.

        Raises:
            InputError: another one is in it, or it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{shown(self.path)}: cannot be made: {error.strerror}") from error
        with exclusive(self.path):
            yield

    def is_empty(self) -> bool:
        """Whether nothing but a lock is there.

        Raises:
            InputError: a file is in the way, or looking is not allowed.
        """
        try:
            return not self.path.exists() or all(entry.name == LOCK for entry in self.path.iterdir())
        except OSError as error:
            raise InputError(f"{shown(self.path)}: expected a folder: {error.strerror}") from error

    def write_settings(self, settings: Settings) -> None:
        """Write ``config.json``."""
        write_json(self.config, settings.to_json())

    def read_settings(self) -> Settings:
        """The settings in ``config.json``.

        Raises:
            InputError: there is none, it is damaged, or it holds what no run has; the file is named.
        """
        if not self.config.is_file():
            raise InputError(f"{shown(self.path)}: expected the folder of a run, found no config.json in it")
        document = read_json(self.config)
        try:
            return Settings.from_json(document)
        except InputError as error:
            raise InputError(f"{shown(self.config)}: {error}") from None

    def read_log(self, *, last_step: int | None = None) -> list[Row]:
        """The rows of ``log.jsonl`` up to ``last_step``; a last line that a kill cut off is left out.

        Raises:
            InputError: a file that cannot be read, or has no text in it.
        """
        try:
            text = read_plain(self.log).decode()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InputError(f"{shown(self.log)}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise InputError(
                f"{shown(self.log)}: expected a line of JSON a step, got a damaged file: {error}; remove it to go on"
                " without what it has"
            ) from None
        rows = []
        for line in text.splitlines():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                break
            if not _is_row(row):
                break
            if last_step is None or row["step"] <= last_step:
                rows.append(row)
        return rows

    def write_log(self, rows: list[Row]) -> None:
        """Write ``log.jsonl`` anew."""
        write_atomically(self.log, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def write_evaluation(self, result: Mapping[str, Any]) -> None:
        """Write ``evaluation.json``; a number that is not finite becomes null."""
        write_json(self.evaluation, _jsonable(result))


def _is_row(row: Any) -> bool:
    """Whether it is a :data:`Row` of numbers that a float can hold."""
    if not isinstance(row, dict) or isinstance(row.get("step"), bool) or not isinstance(row.get("step"), int):
        return False
    return 0 <= row["step"] <= _MOST_STEPS and all(value is None or _is_number(value) for value in row.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
