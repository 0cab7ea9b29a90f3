"""How the cost of a step grows: ``python -m benchmarks.scaling``, one dimension at a time.

::

    python -m benchmarks.scaling --json FILE --plot FILE.svg [--sweeps batch seeds ...] [--device cpu] [--threads 1]

The base case is the AVAE on the paper's MLP (4x200, 64 latents, batch 64, one view). Each sweep changes one thing of
it; the contenders at a value are interleaved. A further sweep is a line of :data:`SWEEPS`: its values, and a function
that measures at one of them, in whatever processes it likes.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO

from benchmarks.contenders import OURS, STOCK, Contender, ours, stock
from benchmarks.lineup import line_up
from benchmarks.machine import described
from benchmarks.options import add_shared, new_file, prepare
from benchmarks.scaling_plot import Curves, save_plot
from benchmarks.timing import interleaved
from benchmarks.together import on_ranks, several_seeds
from pyro_avae.experiments.defaults import settings_for

__all__ = ["SWEEPS", "Sweep", "Timing", "main", "sweep"]


@dataclass(frozen=True)
class Timing:
    """How it is measured.

    Attributes:
        device: where.
        repetitions: timings of each contender.
        seconds: that one timing lasts at least.
    """

    device: torch.device
    repetitions: int
    seconds: float


#: ``(value, timing)`` to milliseconds a step of each contender, repetition by repetition.
Measure = Callable[[int, Timing], dict[str, list[float]]]


@dataclass(frozen=True)
class Sweep:
    """One dimension.

    Attributes:
        label: of the axis.
        values: what is measured at, rising; times are told relative to the first.
        measure: measures at one.
    """

    label: str
    values: Sequence[int]
    measure: Measure


def of_setting(name: str) -> Measure:
    """Measures the base case with another value of a setting."""

    def measure(value: int, timing: Timing) -> dict[str, list[float]]:
        settings = settings_for({"dataset": "color-mnist", "method": "avae", name: value})
        torch.manual_seed(0)
        x = torch.rand(settings.batch_size, *settings.image_shape, device=timing.device)
        pyro.clear_param_store()
        torch.compiler.reset()
        pair = {
            OURS: Contender(lambda: ours(settings, x)),
            STOCK: Contender(lambda: stock(settings, TraceMeanField_ELBO(), x)),
        }
        with pyro.validation_enabled(False):
            steps = line_up(pair, device=timing.device).steps
            return interleaved(
                steps, repetitions=timing.repetitions, least_seconds=timing.seconds, device=timing.device
            )

    return measure


def measured_by(function: Callable[..., dict[str, list[float]]]) -> Measure:
    """Measures by a function of ``(value, device, repetitions, seconds)``."""

    def measure(value: int, timing: Timing) -> dict[str, list[float]]:
        torch.compiler.reset()
        return function(value, device=timing.device, repetitions=timing.repetitions, seconds=timing.seconds)

    return measure


SWEEPS: Mapping[str, Sweep] = {
    "batch": Sweep("images in a batch", (16, 64, 256, 1024, 4096), of_setting("batch_size")),
    "latent": Sweep("latent dimensions", (8, 32, 128, 512), of_setting("latent_dim")),
    "views": Sweep("views", (1, 2, 4, 8), of_setting("num_views")),
    "seeds": Sweep("seeds", (1, 2, 4, 8, 16), measured_by(several_seeds)),
    "ranks": Sweep("ranks that share a batch of 1024", (1, 2), measured_by(on_ranks)),
}


def sweep(name: str, timing: Timing, *, values: Sequence[int] | None = None) -> dict[str, Any]:
    """One of :data:`SWEEPS`, or some values of it, as it stands in the JSON: label, values, and by contender ``ms`` (a
    list of times at each value) and ``relative`` (medians over the first value's).
    """
    chosen = SWEEPS[name]
    values = list(chosen.values if values is None else values)
    ms: dict[str, list[list[float]]] = {}
    for value in values:
        for contender, times in chosen.measure(value, timing).items():
            ms.setdefault(contender, []).append(times)
        shown = ", ".join(f"{contender} {median(times[-1]):.2f} ms" for contender, times in ms.items())
        print(f"{name} {value}: {shown}", flush=True)
    relative = {
        contender: [median(each) / median(at_values[0]) for each in at_values] for contender, at_values in ms.items()
    }
    return {"label": chosen.label, "values": values, "ms": ms, "relative": relative}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_shared(parser)
    parser.add_argument("--plot", type=new_file, default=None, help="draw the growth there, as an SVG")
    parser.add_argument("--sweeps", nargs="+", default=list(SWEEPS), choices=list(SWEEPS))
    args = parser.parse_args(arguments)
    prepare(args)
    timing = Timing(args.device, args.repetitions, args.seconds)
    found = {name: sweep(name, timing) for name in args.sweeps}
    if args.json is not None:
        args.json.write_text(json.dumps({"sweeps": found, **described(args.device)}, indent=2) + "\n")
    if args.plot is not None:
        save_plot([Curves(each["label"], each["values"], each["relative"]) for each in found.values()], args.plot)


if __name__ == "__main__":
    main()
