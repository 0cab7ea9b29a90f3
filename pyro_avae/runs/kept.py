"""Parameters kept through training, ten times in a run by default, for what looks at how a pair was trained."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from pyro_avae.errors import InputError, shown_value
from pyro_avae.evaluation.stages import Stage, tracin_weights
from pyro_avae.runs.checkpoints import (
    Checkpoint,
    check_module,
    load_module,
    read_checkpoint,
    saved_checkpoints,
    step_of,
)
from pyro_avae.runs.run_folder import RunFolder

__all__ = ["kept_checkpoints", "load_kept", "remove_later", "stages"]

log = logging.getLogger(__name__)


def kept_checkpoints(run: str | Path | RunFolder) -> list[Checkpoint]:
    """The intact checkpoints of ``RUN/kept``, in order of their steps; of a damaged one a line in the log says so.

    Each has the parameters and buffers of model and guide, and among its ``facts`` the learning rate ``lr`` of its step
    and under ``fit`` what the training was: ``batch_size``, ``images``, ``seed``, ...

    Args:
        run: the folder of a run.

    Example:
        >>> kept_checkpoints("runs/none")
        []
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    found: list[Checkpoint] = []
    for path in saved_checkpoints(folder.kept):
        try:
            found.append(read_checkpoint(path))
        except InputError as error:
            log.warning("%s; left out", error)
    return found


def load_kept(checkpoint: Checkpoint, model: nn.Module, guide: nn.Module) -> None:
    """Put a kept checkpoint's parameters and buffers into the pair; all of it is checked before any of it is changed.

    Raises:
        InputError: the checkpoint is of another pair.
    """
    parts: Sequence[tuple[str, nn.Module]] = (("model", model), ("guide", guide))
    for prefix, module in parts:
        check_module(module, checkpoint.tensors, prefix)
    for prefix, module in parts:
        load_module(module, checkpoint.tensors, prefix)


def stages(kept: Sequence[Checkpoint], *, num_train: int | None = None) -> list[Stage]:
    """What :func:`~pyro_avae.evaluation.influence` takes, of kept checkpoints.

    Args:
        kept: in order of their steps.
        num_train: images that training drew from; by default as the checkpoints say.

    Raises:
        InputError: checkpoints that say neither a learning rate nor how many images there were.
    """
    for found in kept:
        if "lr" not in found.facts:
            raise InputError(f"kept: expected a learning rate at step {found.step}, found none; the run is damaged")
    steps, lrs = [found.step for found in kept], [float(found.facts["lr"]) for found in kept]
    count = num_train or (_images(kept[0]) if kept else 1)
    weights = tracin_weights(steps, lrs, num_train=count)
    return [Stage(found.step, weight, partial(load_kept, found)) for found, weight in zip(kept, weights, strict=True)]


def remove_later(folder: Path, step: int) -> None:
    """Remove what training wrote after ``step``, from where it now goes on: another course of it, perhaps."""
    for path in saved_checkpoints(folder):
        if step_of(path) > step:
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)


def _images(checkpoint: Checkpoint) -> int:
    count = checkpoint.facts.get("fit", {}).get("images")
    if isinstance(count, bool) or not isinstance(count, int) or not 0 < count <= 10**12:
        raise InputError(f"kept: fit: images: expected a count of images, got {shown_value(count)}; the run is damaged")
    return count
