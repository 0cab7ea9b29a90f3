"""``results.json``: every row's numbers over seeds beside the paper's."""

import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from pyro_avae.evaluation import mean_and_standard_error
from pyro_avae.experiments.paper import gaussian_nll
from pyro_avae.experiments.paper_experiments import Experiment
from pyro_avae.experiments.row_runs import RowRun

__all__ = ["NLL", "machine", "results_rows", "summary", "versions"]

#: The quantity that the paper's column "MSE" holds.
NLL = "gaussian_nll_0.5"

_PACKAGES = ("torch", "pyro-ppl", "numpy", "scikit-learn", "torchattacks", "torchmetrics")
_REFERENCE = "vae"

#: Under PGD, under random noise, under AutoAttack where it ran.
_KINDS = (
    "accuracy",
    "balanced_accuracy",
    "accuracy_noise",
    "accuracy_autoattack",
    "balanced_accuracy_autoattack",
)

Document = Mapping[str, Any]


def results_rows(experiment: Experiment, dataset: str, runs: Sequence[RowRun]) -> list[dict[str, Any]]:
    """The rows of which at least one seed is finished."""
    done: dict[str, dict[int, Document]] = {}
    for run in runs:
        document = run.evaluated()
        if document is not None:
            done.setdefault(run.row.name, {})[run.settings.seed] = document
    pace = {seed: _pace(document) for seed, document in done.get(_REFERENCE, {}).items()}
    rows = []
    for row in experiment.rows:
        if row.name in done:
            settings = next(run.settings for run in runs if run.row.name == row.name)
            rows.append(
                {
                    "method": row.method,
                    "row": row.name,
                    "label": row.label,
                    "groups": list(row.groups),
                    "settings": settings.to_json(),
                    "paper": experiment.paper(row.name, dataset),
                    "ours": _ours(done[row.name], math.prod(settings.image_shape), pace),
                }
            )
    return rows


def summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and standard error of the values that there are, and all of them as ``per_seed``; None where there is none.

    Example:
        >>> summary([0.5, None, 0.7])
        {'mean': 0.6, 'standard_error': 0.1, 'n': 2, 'per_seed': [0.5, None, 0.7]}
        >>> summary([None]) is None
        True
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    found = mean_and_standard_error(known)
    rounded = {key: float(f"{found[key]:.12g}") for key in ("mean", "standard_error") if found[key] is not None}
    return {**found, **rounded, "per_seed": list(values)}


def _ours(documents: Mapping[int, Document], pixels: int, pace: Mapping[int, float]) -> dict[str, Any]:
    """One row's numbers; ``documents`` by seed."""
    every = list(documents.values())

    def over(number: Callable[[Document], float | None]) -> dict[str, Any] | None:
        return summary([number(one) for one in every])

    return {
        "seeds": list(documents),
        "steps": every[0]["steps"],
        **_accuracies(every),
        "majority": {task: measured["majority"] for task, measured in every[0]["tasks"].items()},
        "gradient_masking_passed": {
            task: all(one["tasks"][task].get("gradient_masking", {}).get("passed", True) for one in every)
            for task in every[0]["tasks"]
        },
        "time": summary([_pace(one) / pace[seed] if seed in pace else None for seed, one in documents.items()]),
        "seconds_per_step": over(_pace),
        NLL: over(lambda one: None if one["sse"] is None else gaussian_nll(one["sse"], pixels)),
        "sse": over(lambda one: one["sse"]),
        "mse_per_pixel": over(lambda one: one["mse"]),
        "fid": over(lambda one: one.get("fid", {}).get("fid")),
        "fid_features": sorted({one["fid"]["fid_features"] for one in every if "fid" in one}),
        "bound": over(lambda one: one["bound"]["total"]),
        "log_likelihood": over(lambda one: one["log_likelihood"]),
        "consistency_kl": over(_consistency),
        "reencoding_error": over(lambda one: one.get("reencoding_error")),
    }


def _accuracies(every: Sequence[Document]) -> dict[str, Any]:
    """The accuracies that were measured, by task and radius."""
    kinds = [kind for kind in _KINDS if any(kind in measured for measured in every[0]["tasks"].values())]
    return {
        kind: {
            task: {
                radius: summary([one["tasks"].get(task, {}).get(kind, {}).get(radius) for one in every])
                for radius in measured.get(kind, {})
            }
            for task, measured in every[0]["tasks"].items()
        }
        for kind in kinds
    }


def _consistency(document: Document) -> float | None:
    """E KL(q(z_aux|x_aux) ‖ p(z_aux|z)), nats per image, where there is a z_aux."""
    value = document["bound"].get("z_aux")
    return None if value is None else -value


def _pace(document: Document) -> float:
    """Seconds a step."""
    return float(document["training_seconds"] / document["steps"])


def versions() -> dict[str, str]:
    """Python and the packages that the numbers depend on; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for package in ("pyro-avae", *_PACKAGES):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine(device: torch.device) -> dict[str, Any]:
    """What the runs ran on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "cpu": _cpu_model(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    """The processor's name as Linux tells it, elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
