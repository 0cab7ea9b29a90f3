"""Checkpoints: tensors as safetensors, the rest as JSON, each written whole, with a checksum; nothing is pickled."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError, shown_value
from pyro_avae.paths import shown
from pyro_avae.runs.files import read_json, read_plain, write_atomically, write_json
from pyro_avae.runs.kinds import Integer, Kind, Number, Switch
from pyro_avae.runs.migration import Migrations, migrated

__all__ = [
    "Checkpoint",
    "check_module",
    "load_module",
    "newest_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "saved_checkpoints",
    "step_of",
    "write_checkpoint",
]

log = logging.getLogger(__name__)

FORMAT = 1
#: From format k to k + 1, of the JSON document.
MIGRATIONS: Migrations = {}
KEPT = 2

_NAME = re.compile(r"step-([0-9]{12})\.json")

#: What else a checkpoint says, where it says it.
_FACTS: Mapping[str, Kind] = {
    "seconds": Number("a finite number of at least 0", lambda v: v >= 0),
    "lr": Number("a finite number above 0", lambda v: v > 0),
    "compiled": Switch(),
}
_STEP = Integer(0, 10**12)

#: What parameters are made of, of which one may be read as another.
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Checkpoint:
    """A state of training.

    Attributes:
        step: how many steps were done.
        tensors: parameters, buffers, optimiser state and random states, by name.
        facts: the rest, values of JSON.
    """

    step: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, *, keep: int = KEPT) -> Path:
    """Write a checkpoint and remove all but the ``keep`` newest.

    A run killed in between has lost nothing: what was there before is removed only afterwards.

    Raises:
        OSError: as :func:`write_checkpoint`.
    """
    path = write_checkpoint(folder, checkpoint)
    _remove_old(folder, path, keep)
    return path


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint beside those that are there.

    The tensors are written first; the JSON file, which has their checksum and one of its own, makes the checkpoint
    valid.

    Raises:
        OSError: it cannot be written; the checkpoints there are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{checkpoint.step:012d}.json"
    # A copy each: safetensors refuses tensors that share memory, which tied weights do.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in checkpoint.tensors.items()}
    content = safetensors.torch.save(plain)
    write_atomically(path.with_suffix(".safetensors"), content)
    document = {
        "format": FORMAT,
        "step": checkpoint.step,
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        **checkpoint.facts,
    }
    write_json(path, {**document, "sha256": _digest(document)})
    return path


def newest_checkpoint(folder: Path, *, up_to: int | None = None) -> Checkpoint | None:
    """The newest intact checkpoint, or None; a damaged one is skipped, and a line in the log says so.

    ``up_to`` leaves out those of later steps.
    """
    for path in reversed(saved_checkpoints(folder)):
        if up_to is not None and step_of(path) > up_to:
            continue
        try:
            return read_checkpoint(path)
        except InputError as error:
            log.warning("%s; looking for an older checkpoint", error)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint whose JSON file is ``path``. Nothing in it is run as code.

    Raises:
        InputError: a file is missing, damaged, or of another format.
    """
    document, where = read_json(path), f"{shown(path)}: damaged checkpoint"
    if not isinstance(document, dict):
        raise InputError(f"{where}: expected a JSON object")
    digest = document.pop("sha256", None)
    if digest != _digest(document):
        raise InputError(f"{where}: its checksum does not fit")
    document = migrated(document, MIGRATIONS, current=FORMAT, what=shown(path))
    tensors = _read_tensors(path.with_suffix(".safetensors"), checksum=document.pop("tensors_sha256", None))
    step = _STEP.check(f"{where}: step", document.pop("step", None))
    if _NAME.fullmatch(path.name) and step != step_of(path):
        raise InputError(f"{where}: expected step {step_of(path)}, as its name says, got {step}")
    facts = {name: _FACTS[name].check(f"{where}: {name}", v) if name in _FACTS else v for name, v in document.items()}
    if not isinstance(facts.get("fit", {}), dict):
        raise InputError(f"{where}: fit: expected a JSON object, got {shown_value(facts['fit'])}")
    return Checkpoint(step, tensors, facts)


def _read_tensors(file: Path, *, checksum: object) -> dict[str, Tensor]:
    where = f"{shown(file)}: damaged checkpoint"
    try:
        content = read_plain(file)
    except OSError as error:
        raise InputError(f"{where}: {error.strerror}") from None
    # What is checked is what is read: the file is opened once.
    if hashlib.sha256(content).hexdigest() != checksum:
        raise InputError(f"{where}: its checksum does not fit")
    try:
        return safetensors.torch.load(content)
    except MemoryError:
        raise
    except Exception as error:  # its own error, or what torch makes of a shape or a dtype that it does not have
        raise InputError(f"{where}: {type(error).__name__}: {shown_value(str(error))}") from None


def check_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Raise :class:`InputError` that names the first tensor that ``module`` and the tensors do not agree on."""
    there = {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
    wanted = module.state_dict()
    for name in (*wanted, *there):
        if name not in there or name not in wanted:
            lacking = "the checkpoint" if name not in there else f"the {prefix}"
            raise InputError(f"{shown(f'{prefix}.{name}')}: {lacking} has none; the checkpoint is of another {prefix}")
        found, expected = there[name], wanted[name]
        # A pair trained in float64 may be read in float32.
        both_floating = found.dtype in _FLOATING and expected.dtype in _FLOATING
        if found.shape != expected.shape or not (both_floating or found.dtype == expected.dtype):
            raise InputError(
                f"{prefix}.{name}: expected {expected.dtype} {tuple(expected.shape)}, the checkpoint has {found.dtype}"
                f" {tuple(found.shape)}; it is of another {prefix}"
            )
        if both_floating and not bool(found.isfinite().all()):
            raise InputError(f"{prefix}.{name}: expected finite numbers, the checkpoint has NaN or infinite ones")


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Put the tensors named ``prefix.NAME`` into ``module``; checked first, see :func:`check_module`."""
    check_module(module, tensors, prefix)
    start = f"{prefix}."
    module.load_state_dict({name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)})


def saved_checkpoints(folder: Path) -> list[Path]:
    """The JSON files of the checkpoints, in order of their steps."""
    return sorted(path for path in folder.glob("step-*.json") if _NAME.fullmatch(path.name))


def step_of(path: Path) -> int:
    """The step that the name of a checkpoint's file tells."""
    return int(path.stem.removeprefix("step-"))


def _remove_old(folder: Path, newest: Path, keep: int) -> None:
    """Remove all but the newest up to the one just written, and what killed writes left behind.

    Later ones are there only if they are damaged and training went back behind them: they do not count, and stay.
    """
    saved = saved_checkpoints(folder)
    done = saved.index(newest) + 1
    for path in saved[: max(done - keep, 0)]:
        path.unlink(missing_ok=True)
    kept = {path.stem for path in saved[max(done - keep, 0) :]}
    for path in (*folder.glob("step-*.safetensors"), *folder.glob(".step-*.tmp")):
        if path.stem not in kept:
            path.unlink(missing_ok=True)


def _digest(document: Mapping[str, Any]) -> str:
    try:
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    except RecursionError:  # nested just not deeply enough to be refused when it was read
        return ""
