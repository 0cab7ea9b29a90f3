"""Fitted probes in a file: one that was fitted to these features before is not fitted again."""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pyro_avae.evaluation.probe import LinearProbe, fit_probe
from pyro_avae.paths import shown
from pyro_avae.runs.files import write_atomically

__all__ = ["StoredProbes"]

log = logging.getLogger(__name__)

_TENSORS = ("weight", "bias", "mean")
_FACTS = ("scale", "c", "held_out_accuracy", "converged")


class StoredProbes:
    """:func:`~pyro_avae.evaluation.fit_probe` with a memory, to be given to ``evaluate(fit=...)``.

    A probe is found by the SHA-256 of the features, labels, number of classes and seed that it was fitted with, so
    that none is taken for another: an encoder that was trained on has other features. A file that is missing or
    damaged holds no probes.

    Args:
        path: the file, ``RUN/probes.safetensors`` in a run's folder.
        write: whether a probe that had to be fitted is added to it.

    Example:
        >>> import tempfile
        >>> import torch
        >>> f = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> labels = (f[:, 0] > 0).long()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fitted = StoredProbes(Path(folder) / "probes.safetensors")(f, labels, 2, seed=0)
        ...     again = StoredProbes(Path(folder) / "probes.safetensors")(f, labels, 2, seed=0)
        >>> bool((fitted.weight == again.weight).all())
        True
    """

    def __init__(self, path: str | Path, *, write: bool = True) -> None:
        self.path = Path(path)
        self.write = write
        self._probes = _read(self.path)

    def __call__(self, features: Tensor, labels: Tensor, num_classes: int, *, seed: int) -> LinearProbe:
        """The probe of these features, fitted unless it is there.

        Raises:
            InputError: as :func:`~pyro_avae.evaluation.fit_probe`.
        """
        key = _key(features, labels, num_classes, seed)
        # Another's probe under this one's name would give wrong accuracies.
        there = self._probes.get(key)
        fits = there is not None and there.weight.shape == (num_classes, features.shape[1])
        if there is None or not fits or there.weight.dtype != features.dtype:
            self._probes[key] = fit_probe(features, labels, num_classes, seed=seed)
            if self.write:
                _write(self.path, self._probes)
        return self._probes[key]


def _key(features: Tensor, labels: Tensor, num_classes: int, seed: int) -> str:
    digest = hashlib.sha256(f"{tuple(features.shape)} {features.dtype} {num_classes} {seed} ".encode())
    for tensor in (features, labels):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, probes: Mapping[str, LinearProbe]) -> None:
    tensors = {f"{key}.{name}": getattr(probe, name).cpu() for key, probe in probes.items() for name in _TENSORS}
    facts = {key: json.dumps({name: getattr(probe, name) for name in _FACTS}) for key, probe in probes.items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata=facts))


def _read(path: Path) -> dict[str, LinearProbe]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            return {key: _probe(file, key, json.loads(text)) for key, text in facts.items()}
    except FileNotFoundError:
        return {}
    except MemoryError:
        raise
    except Exception as error:  # safetensors', JSON's, or what torch makes of a shape or a dtype that it does not have
        log.warning("%s: no probes read from it: %s", shown(path), str(error).partition("\n")[0])
        return {}


def _probe(file: Any, key: str, facts: Mapping[str, Any]) -> LinearProbe:
    weight, bias, mean = tensors = [file.get_tensor(f"{key}.{name}") for name in _TENSORS]
    if weight.dim() != 2 or bias.shape != weight.shape[:1] or mean.shape != weight.shape[1:]:
        raise ValueError(f"{key}: expected a weight (K, L), a bias (K,) and a mean (L,)")
    if not all(tensor.dtype.is_floating_point and bool(tensor.isfinite().all()) for tensor in tensors):
        raise ValueError(f"{key}: expected finite numbers")
    numbers = {name: float(facts[name]) for name in ("scale", "c", "held_out_accuracy")}
    if not all(map(math.isfinite, numbers.values())) or numbers["scale"] <= 0:
        raise ValueError(f"{key}: expected finite numbers and a scale above 0")
    return LinearProbe(weight, bias, mean, **numbers, converged=bool(facts["converged"]))
