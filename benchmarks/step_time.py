"""How long a step takes: ``python -m benchmarks.step_time``, contenders interleaved in one process.

::

    python -m benchmarks.step_time [--device cpu] [--threads 1] [--json FILE] [--cases mlp-64 conv-64 ...]

Prints, for each case and method, the median milliseconds of every contender and its ratio to the others' that matter:
compiled against torch written by hand and compiled, against stock Pyro, against JAX (``pip install jax``; fully
connected networks), and each method against the VAE.
"""

import argparse
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pyro
import torch

from benchmarks.contenders import contenders
from benchmarks.handwritten import OBJECTIVES
from benchmarks.timing import interleaved, ratios
from pyro_avae.experiments.defaults import settings_for

#: Networks and batch sizes.
CASES: Mapping[str, Mapping[str, Any]] = {
    "mlp-64": {"batch_size": 64},
    "mlp-1024": {"batch_size": 1024},
    "conv-64": {"batch_size": 64, "architecture": "conv", "channels": 16},
}


def measure(
    case: str, method: str, *, device: torch.device, repetitions: int, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds a step of every contender."""
    objective, changes = OBJECTIVES[method]
    settings = settings_for({"dataset": "color-mnist", **CASES[case], **changes})
    x = torch.rand(settings.batch_size, *settings.image_shape, device=device)
    pyro.clear_param_store()
    torch.compiler.reset()
    with pyro.validation_enabled(False):
        return interleaved(
            contenders(method, settings, objective, x), repetitions=repetitions, least_seconds=seconds, device=device
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=None, help="of the CPU (default: torch's)")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.5, help="that one timing lasts at least")
    parser.add_argument("--json", type=Path, default=None, help="write all times there")
    args = parser.parse_args()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    times: dict[str, dict[str, dict[str, list[float]]]] = {}
    for case in args.cases:
        for method in args.methods:
            found = measure(case, method, device=device, repetitions=args.repetitions, seconds=args.seconds)
            times.setdefault(case, {})[method] = found
            print(f"\n{case}, {method}: median ms a step ({args.repetitions} repetitions)")
            for name, each in found.items():
                print(f"  {name:26} {median(each):8.2f}   {min(each):8.2f} .. {max(each):.2f}")
            for to in ("torch by hand, compiled", "SVI, TraceMeanField_ELBO", "JAX"):
                if to not in found:
                    continue
                low, middle, high = ratios(found, "ours, compiled", to)
                print(f"  ours, compiled / {to}: {middle:.3f} ({low:.3f} .. {high:.3f})", flush=True)
    for case, methods in times.items():
        if "vae" in methods:
            for method, found in methods.items():
                ratio = median(found["ours, compiled"]) / median(methods["vae"]["ours, compiled"])
                print(f"{case}: {method} / vae, compiled: {ratio:.2f}")
    if args.json is not None:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
        machine = {"device": str(device), "threads": torch.get_num_threads(), "processor": platform.processor()}
        args.json.write_text(json.dumps({"ms": times, "versions": versions, "machine": machine}, indent=2) + "\n")


if __name__ == "__main__":
    main()
