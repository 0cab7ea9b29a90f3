"""Where the time of our compiled step goes, and what each measure that it takes is worth.

::

    python -m benchmarks.step_parts [--device cpu] [--threads 1] [--json FILE] [--cases mlp-64 ...] [--methods avae ...]

Prints, for each case and method, the milliseconds of a step that matrix products and convolutions take, the optimiser
and the drawing of noise, on the thread that makes the step; what is left is the kernels between them and Python. Then
the step without each of its measures, interleaved with the whole one: the ratio of times, and the peak memory.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any
from unittest.mock import patch

import pyro
import torch
from torch import Tensor
from torch.autograd.profiler import record_function
from torch.profiler import ProfilerActivity, profile

from benchmarks.contenders import OURS, Contender, Step, ours
from benchmarks.handwritten import OBJECTIVES
from benchmarks.lineup import line_up
from benchmarks.machine import described
from benchmarks.options import add_shared, prepare
from benchmarks.step_time import CASES, given
from benchmarks.timing import interleaved, ratios
from pyro_avae.compilation import base_noise, inductor, noise_blocks
from pyro_avae.runs.settings import Settings

__all__ = ["MEASURES", "main", "parts_of", "without"]

_DRAWING = "the drawing of noise"

#: What an operation of a profile belongs to, by a part of its name.
_PARTS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "conv", "add_product"),
    "the optimiser": ("adam",),
}


def _held(run: inductor.Inductor, tensors: list[Tensor], call: Any = inductor.Inductor.__call__) -> Any:
    kept = list(tensors)
    found = call(run, tensors)
    kept.clear()
    return found


#: What a step does to be fast or small: the object that does it, the name there, and what stands in its place.
MEASURES: Mapping[str, tuple[Any, str, Any]] = {
    "pixels computed by each reader": (inductor, "compute_for_each_reader", lambda graph: None),
    "noise freed after its last use": (inductor.Inductor, "__call__", _held),
    "products added up in place": (inductor, "accumulate_in_place", lambda graph: None),
    "convolutions laid out once": (inductor, "lay_out_channels_last", lambda graph: None),
    "noise drawn by all threads": (noise_blocks, "_FEWEST", 2**62),
}


def without(measure: str, settings: Settings, x: Tensor) -> Step:
    """Our compiled step without one of its measures."""
    stand_in = MEASURES[measure]
    with patch.object(*stand_in):
        step = ours(settings, x)

    def run() -> object:
        with patch.object(*stand_in):
            return step()

    return run


def parts_of(step: Step, *, steps: int) -> dict[str, float]:
    """Milliseconds of one of ``steps`` steps on a CPU, by what takes them; ``"all"`` is the whole."""
    draw = base_noise.fill_in_blocks

    def drawn(*arguments: Any) -> Tensor:
        with record_function(_DRAWING):
            return draw(*arguments)

    with ExitStack() as stack:
        stack.enter_context(patch.object(base_noise, "fill_in_blocks", drawn))
        profiled = stack.enter_context(profile(activities=[ProfilerActivity.CPU], acc_events=True))
        with record_function("all"):
            for _ in range(steps):
                step()
    found = dict.fromkeys((*_PARTS, _DRAWING, "all"), 0.0)
    for event in profiled.key_averages():
        if event.key in (_DRAWING, "all"):
            found[event.key] += event.cpu_time_total / 1e3 / steps
        for part, names in _PARTS.items():
            if any(name in event.key.lower() for name in names):
                found[part] += event.self_cpu_time_total / 1e3 / steps
    return found


def _measure(case: str, method: str, args: argparse.Namespace) -> dict[str, Any]:
    settings, x = given(case, method, args.device)
    pyro.clear_param_store()
    torch.compiler.reset()
    made: dict[str, Contender] = {OURS: Contender(lambda: ours(settings, x))}
    for measure in MEASURES:
        made[measure] = Contender(partial(without, measure, settings, x))
    with pyro.validation_enabled(False):
        lineup = line_up(made, device=args.device)
        ms = interleaved(lineup.steps, repetitions=args.repetitions, least_seconds=args.seconds, device=args.device)
        steps = max(10, round(1e3 * args.seconds / median(ms[OURS])))
        parts = parts_of(lineup.steps[OURS], steps=steps) if args.device.type == "cpu" else {}
    return {"parts": parts, "ms": ms, "peaks": lineup.peaks}


def _lines(found: Mapping[str, Any]) -> Iterable[str]:
    for part, ms in found["parts"].items():
        yield f"  {part:32} {ms:8.2f} ms"
    yield f"  {'peak memory':32} {found['peaks'][OURS] / 2**20:8.1f} MiB"
    for measure in MEASURES:
        low, middle, high = ratios(found["ms"], measure, OURS)
        peak = found["peaks"][measure] / 2**20
        yield f"  without: {measure:32} {peak:8.1f} MiB, {middle:.3f} of the time ({low:.3f} .. {high:.3f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared(parser)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=["vae", "avae", "avae, cut"], choices=list(OBJECTIVES))
    args = parser.parse_args(arguments)
    prepare(args)
    cases: dict[str, dict[str, Any]] = {}
    for case in args.cases:
        for method in args.methods:
            found = cases.setdefault(case, {})[method] = _measure(case, method, args)
            print(f"\n{case}, {method}: {median(found['ms'][OURS]):.2f} ms a step")
            print("\n".join(_lines(found)), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps({"cases": cases, **described(args.device)}, indent=2) + "\n")


if __name__ == "__main__":
    main()
