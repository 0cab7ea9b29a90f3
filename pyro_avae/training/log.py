"""What training reports at a logged step: rows in memory, in ``log.jsonl``, and as TensorBoard curves."""

import json
import shutil
from typing import IO, Any

from pyro_avae.runs.run_folder import Row, RunFolder

__all__ = ["TrainingLog"]


class TrainingLog:
    """The history of a run, on disk too where it has a folder.

    Args:
        folder: where to write; None keeps the rows in memory alone.
        last_step: how many steps are done; rows beyond it, of a run that was killed, are dropped, curves included.
    """

    def __init__(self, folder: RunFolder | None, *, last_step: int = 0) -> None:
        self.rows: list[Row] = []
        self._file: IO[str] | None = None
        self._curves: Any = None
        if folder is None:
            return
        # Only here, since not everybody trains into a folder.
        from tensorboard.summary import Writer

        self.rows = folder.read_log(last_step=last_step)
        folder.write_log(self.rows)
        self._file = folder.log.open("a")
        shutil.rmtree(folder.tensorboard, ignore_errors=True)
        self._curves = Writer(str(folder.tensorboard))
        for row in self.rows:
            self._draw(row)

    def write(self, row: Row) -> None:
        """Add a row."""
        self.rows.append(row)
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
            self._draw(row)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._curves.flush()
            self._curves.close()

    def _draw(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step" and value is not None:
                self._curves.add_scalar(f"train/{name}", value, int(row["step"] or 0))
