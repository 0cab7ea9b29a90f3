"""One seed of a training: its pair, its data in its order, and what it writes."""

import platform
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError, shown_value
from pyro_avae.runs.checkpoints import Checkpoint, save_checkpoint, write_checkpoint
from pyro_avae.runs.run_folder import Row, RunFolder
from pyro_avae.training.batches import EpochOrder
from pyro_avae.training.log import TrainingLog
from pyro_avae.training.sources import Source
from pyro_avae.training.state import TrainingState, has_optimizer, watched

__all__ = ["Member"]


@dataclass
class Member:
    """One seed.

    Attributes:
        seed: the seed.
        model: its model.
        guide: its guide.
        source: its data.
        order: the order of the data.
        facts: what a checkpoint has to agree with.
        state: what is saved, once there is an optimiser.
        folder: where it is saved; None for a training in memory, and for all ranks but the first.
        log: what was logged.
    """

    seed: int
    model: nn.Module
    guide: nn.Module
    source: Source
    order: EpochOrder
    facts: dict[str, Any]
    state: TrainingState = field(init=False)
    folder: RunFolder | None = None
    log: TrainingLog = field(default_factory=lambda: TrainingLog(None))

    def argument(self, step: int) -> Tensor:
        """What step 0, 1, ... is called with."""
        return self.source.argument(self.order, step)

    def learned(self) -> dict[str, float]:
        """What training changes and is worth a curve."""
        return {name: float(value) for name, value in watched((self.model, self.guide)).items()}

    def begin_log(self, step: int) -> None:
        """Begin the log, or go on with it after ``step`` steps."""
        self.log = TrainingLog(self.folder, last_step=step)

    def write(self, row: Row) -> None:
        """Log a row."""
        self.log.write(row)

    def check(self, found: Checkpoint, *, compile: bool | None) -> None:
        """Refuse a checkpoint of another training.

        Raises:
            InputError: it is one.
        """
        then = found.facts.get("fit")
        for name, value in self.facts.items():
            other = then.get(name) if isinstance(then, dict) else None
            if not isinstance(then, dict) or other != value:
                raise InputError(f"{name}: the run to go on with has {shown_value(other)}, got {shown_value(value)}")
        if not has_optimizer(found.tensors):
            raise InputError("optimizer: expected its state in the checkpoint to go on with, found none")
        compiled = bool(found.facts.get("compiled", False))
        if compile is not None and compile != compiled:
            raise InputError(f"compile: the run to go on with has {compiled}, got {compile}")

    def save(self, step: int, *, seconds: float, compiled: bool) -> None:
        """Write a checkpoint.

        Raises:
            FloatingPointError: a parameter or buffer is not finite.
            OSError: it cannot be written.
        """
        if self.folder is None:
            return
        self.state.check_finite()
        facts = {
            "seconds": seconds,
            "device": self.state.device.type,
            "fit": self.facts,
            "compiled": compiled,
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__},
        }
        save_checkpoint(self.folder.checkpoints, Checkpoint(step, self.state.tensors(), facts))

    def keep(self, step: int) -> None:
        """Write the parameters and buffers, which stay.

        Raises:
            FloatingPointError: one is not finite.
            OSError: they cannot be written.
        """
        if self.folder is None:
            return
        self.state.check_finite()
        facts = {"lr": self.facts["lr"], "fit": self.facts}
        write_checkpoint(self.folder.kept, Checkpoint(step, self.state.module_tensors(), facts))
