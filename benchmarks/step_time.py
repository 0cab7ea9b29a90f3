"""How long a step takes: ``python -m benchmarks.step_time``, contenders interleaved in one process.

::

    python -m benchmarks.step_time [--device cpu] [--threads 1] [--json FILE] [--cases mlp-64 conv-64 ...]
    python -m benchmarks.step_time --only-beside [...]

Prints, for each case and method, the median milliseconds and the peak memory of every contender, and ratios: compiled
against torch written by hand and compiled, against stock Pyro, against JAX (``pip install jax``; fully connected
networks) and pythae (the VAE; how to install it: :mod:`benchmarks.pythae_step`), and against the floor. Who cannot do a
method is left out, and why is said. Then (``--only-beside``: nothing else) the methods themselves, interleaved, each
against the VAE: the median ratio of times, that of the fastest times, which others on the machine disturb least, and
that of floating-point operations.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import pyro
import torch
from torch import Tensor

from benchmarks.contenders import BY_HAND, OURS, STOCK, contenders, ours
from benchmarks.floor import Floor, floor_of
from benchmarks.flops import by_hand_call, count, traced_call
from benchmarks.handwritten import OBJECTIVES
from benchmarks.lineup import line_up
from benchmarks.machine import described
from benchmarks.options import add_shared, prepare
from benchmarks.timing import interleaved, ratios
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.runs.settings import Settings

#: Networks and batch sizes.
CASES: Mapping[str, Mapping[str, Any]] = {
    "mlp-64": {"batch_size": 64},
    "mlp-1024": {"batch_size": 1024},
    "conv-64": {"batch_size": 64, "architecture": "conv", "channels": 16},
}


@dataclass(frozen=True)
class Measured:
    """One method on one case.

    Attributes:
        ms: milliseconds a step of every contender, repetition by repetition.
        peaks: the peak memory of its step, in bytes.
        left_out: who does not take part, and why.
        floor: of the step.
        flops_by_hand: floating-point operations of the objective by hand; those of the traced graph are the floor's.
    """

    ms: dict[str, list[float]]
    peaks: dict[str, int]
    left_out: dict[str, str]
    floor: Floor
    flops_by_hand: int


def measure(case: str, method: str, *, device: torch.device, repetitions: int, seconds: float) -> Measured:
    """Everything about a method on a case."""
    objective, _ = OBJECTIVES[method]
    settings, x = given(case, method, device)
    pyro.clear_param_store()
    torch.compiler.reset()
    with pyro.validation_enabled(False):
        lineup = line_up(contenders(method, settings, objective, x), device=device)
        ms = interleaved(lineup.steps, repetitions=repetitions, least_seconds=seconds, device=device)
    return Measured(
        ms=ms,
        peaks=lineup.peaks,
        left_out=lineup.left_out,
        floor=floor_of(settings, x, seconds=seconds / 10),
        flops_by_hand=count(by_hand_call(settings, objective, x)),
    )


def side_by_side(
    case: str, methods: Sequence[str], *, device: torch.device, repetitions: int, seconds: float
) -> dict[str, list[float]]:
    """Milliseconds of our compiled step of each method, the methods interleaved: what one costs beside another."""
    with pyro.validation_enabled(False):
        steps = {method: ours(*given(case, method, device)) for method in methods}
        return interleaved(steps, repetitions=repetitions, least_seconds=seconds, device=device)


def given(case: str, method: str, device: torch.device) -> tuple[Settings, Tensor]:
    """The settings of a method on a case, and a batch."""
    _, changes = OBJECTIVES[method]
    settings = settings_for({"dataset": "color-mnist", **CASES[case], **changes})
    torch.manual_seed(0)
    return settings, torch.rand(settings.batch_size, *settings.image_shape, device=device)


def lines(found: Measured) -> Iterable[str]:
    """What is said of a method on a case."""
    for name, each in found.ms.items():
        peak = f"{found.peaks[name] / 2**20:8.1f} MiB" if name in found.peaks else f"{'-':>12}"
        yield f"  {name:26} {median(each):8.2f}   {min(each):8.2f} .. {max(each):<8.2f} {peak}"
    for name, reason in found.left_out.items():
        yield f"  left out: {name}: {reason}"
    for to in (BY_HAND, STOCK, "JAX", "pythae"):
        if to in found.ms:
            low, middle, high = ratios(found.ms, OURS, to)
            yield f"  {OURS} / {to}: {middle:.3f} ({low:.3f} .. {high:.3f})"
    yield f"  peak memory, {OURS} / {BY_HAND}: {found.peaks[OURS] / found.peaks[BY_HAND]:.3f}"
    floor = found.floor
    yield (
        f"  floor: {floor.flops / 1e9:.3f} GFLOP ({found.flops_by_hand / 1e9:.3f} by hand) at"
        f" {floor.flop_rate / 1e9:.1f} GFLOP/s: {floor.flops_ms:.3f} ms;"
        f" {floor.bytes / 1e6:.1f} MB at {floor.byte_rate / 1e9:.1f} GB/s: {floor.bytes_ms:.3f} ms"
    )
    yield f"  {OURS} / floor: {median(found.ms[OURS]) / floor.ms:.2f}"


def _beside(ms: Mapping[str, list[float]], method: str) -> str:
    low, middle, high = ratios(ms, method, "vae")
    return f"{method}: {middle:.2f} ({low:.2f} .. {high:.2f}), {min(ms[method]) / min(ms['vae']):.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared(parser)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--methods", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES))
    parser.add_argument("--only-beside", action="store_true", help="the methods beside each other, no other contenders")
    args = parser.parse_args(arguments)
    prepare(args)
    all_of_them: dict[str, dict[str, Measured]] = {}
    for case in args.cases if not args.only_beside else ():
        for method in args.methods:
            found = measure(case, method, device=args.device, repetitions=args.repetitions, seconds=args.seconds)
            all_of_them.setdefault(case, {})[method] = found
            print(
                f"\n{case}, {method}: median ms a step ({args.repetitions} repetitions), lowest .. highest, peak memory"
            )
            print("\n".join(lines(found)), flush=True)
    beside: dict[str, dict[str, list[float]]] = {}
    if "vae" in args.methods and len(args.methods) > 1:
        print("\nmethods interleaved, compiled, over the VAE's: time (lowest .. highest), fastest time, FLOPs")
        for case in args.cases:
            beside[case] = side_by_side(
                case, args.methods, device=args.device, repetitions=args.repetitions, seconds=args.seconds
            )
            flops = {method: count(traced_call(*given(case, method, args.device))) for method in args.methods}
            for method in args.methods:
                print(f"{case}: {_beside(beside[case], method)}, {flops[method] / flops['vae']:.2f}", flush=True)
    if args.json is not None:
        cases = {case: {name: asdict(each) for name, each in methods.items()} for case, methods in all_of_them.items()}
        document = {"cases": cases, "methods interleaved": beside, **described(args.device)}
        args.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
