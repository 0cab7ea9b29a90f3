"""Starting a run from another run's trained pair."""

from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.paths import shown, user_path
from pyro_avae.runs.checkpoints import check_module, load_module, newest_checkpoint
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.triple import Triple

__all__ = ["copy_trained", "inherited"]

#: What a run has of the one that it starts from, unless it is given: the data, and all that shapes the networks.
_INHERITED = (
    "dataset",
    "data_root",
    "image_shape",
    "latent_dim",
    "obs_variance",
    "likelihood",
    "architecture",
    "hidden",
    "channels",
    "normalization",
    "model",
    "window",
    "prior",
    "flow_steps",
    "flow_hidden",
)

#: The trained parts, as checkpoints name them.
_PARTS = ("model.observation", "guide.encoder", "model.flow")


def inherited(run: str | Path) -> dict[str, Any]:
    """The settings that a run has of the run it starts from.

    Raises:
        InputError: no run there.
    """
    settings = RunFolder(run).read_settings()
    return {name: getattr(settings, name) for name in _INHERITED}


def copy_trained(run: str | Path, triple: Triple) -> None:
    """Put the decoder, the likelihood, the prior and the encoder of a trained run into a new pair; the rest stays new.

    All of it is checked before any of it is copied.

    Raises:
        InputError: no run there, no intact checkpoint, or networks of other shapes.
    """
    folder = RunFolder(user_path(run))
    checkpoint = newest_checkpoint(folder.checkpoints)
    if checkpoint is None:
        raise InputError(f"--from: {shown(folder.path)}: expected a trained run, found no intact checkpoint")
    model, guide, _ = triple
    try:
        modules = getattr(model, "observation", None), getattr(guide, "encoder", None), getattr(model, "flow", None)
        checked = []
        for part, module in zip(_PARTS, modules, strict=True):
            if module is None and part == "model.flow":
                continue  # N(0, I) has nothing to copy
            if module is None:
                raise InputError(f"{part}: the new pair has none; a method of one's own loads what it wants itself")
            check_module(module, checkpoint.tensors, part)
            checked.append((part, module))
        for part, module in checked:
            load_module(module, checkpoint.tensors, part)
    except InputError as error:
        raise InputError(f"--from: {shown(folder.path)}: {error}") from None
