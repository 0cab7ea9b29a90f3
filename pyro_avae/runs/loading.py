"""A trained run, back as the pair that it trained."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pyro_avae.devices import as_device
from pyro_avae.errors import InputError
from pyro_avae.paths import shown
from pyro_avae.randomness import isolated
from pyro_avae.runs.checkpoints import check_module, load_module, newest_checkpoint
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import build_triple, import_builder
from pyro_avae.runs.trust import Trust

__all__ = ["LoadedRun", "load", "load_run"]


class LoadedRun(NamedTuple):
    """A run as it was at its newest intact checkpoint.

    Attributes:
        model: in eval mode.
        guide: in eval mode.
        config: the run's settings.
        step: how many steps it was trained.
        seconds: how long that took.
    """

    model: nn.Module
    guide: nn.Module
    config: Settings
    step: int
    seconds: float


def load(
    run: str | Path, *, device: str | torch.device = "cpu", trust: Trust = ()
) -> tuple[nn.Module, nn.Module, Settings]:
    """The trained model and guide of a run folder, in eval mode, and the run's settings.

    The pair is built by the function that the run's settings name, then gets the tensors of the newest intact
    checkpoint. Nothing is unpickled. A run of one's own method imports the module of its builder: one that this user
    has trained with on this machine, or that ``trust`` names; any other is refused.

    Args:
        run: the folder.
        device: where the pair is wanted.
        trust: a ``"module:function"`` that the run may name as its builder, or several.

    Raises:
        InputError: no run, no intact checkpoint, a builder that is not trusted or cannot be imported, or a checkpoint
            of another pair.

    Example:
        >>> load("runs/none")
        Traceback (most recent call last):
        pyro_avae.errors.InputError: ...: expected the folder of a run, found no config.json in it
    """
    loaded = load_run(run, device=device, trust=trust)
    return loaded.model, loaded.guide, loaded.config


def load_run(run: str | Path, *, device: str | torch.device = "cpu", trust: Trust = ()) -> LoadedRun:
    """:func:`load` with what else is known of the run."""
    place = as_device(device)
    folder = RunFolder(run)
    settings = folder.read_settings()
    if settings.builder is None:
        raise InputError(f"{shown(folder.config)}: builder: expected module:function, got none")
    builder = import_builder(settings.builder, trust=trust, where=f"{shown(folder.config)}: builder")
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise InputError(f"{shown(folder.path)}: no intact checkpoint; train the run first, or go on with --resume")
    with isolated(settings.seed):
        model, guide, _ = build_triple(builder, settings, what=settings.builder)
    parts = {"model": model, "guide": guide}
    try:
        for prefix, module in parts.items():
            check_module(module, checkpoint.tensors, prefix)
    except InputError as error:
        raise InputError(f"{shown(folder.path)}: {error}") from None
    for prefix, module in parts.items():
        load_module(module, checkpoint.tensors, prefix)
        module.to(place).eval()
    return LoadedRun(model, guide, settings, checkpoint.step, float(checkpoint.facts.get("seconds", 0.0)))
