"""How the cost of a step grows: ``python -m benchmarks.scaling``, one dimension at a time.

::

    python -m benchmarks.scaling --json FILE --plot FILE.svg [--sweeps batch seeds ...] [--device cpu] [--threads 1]

The base case is the AVAE on the paper's MLP (4x200, 64 latents, batch 64, one view). Each sweep changes one thing of
it; all contenders at all values are interleaved, so that a machine that slows down changes no curve. A further sweep is
a line of :data:`SWEEPS`: its values, and a function that measures at them, in whatever processes it likes.
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

from benchmarks.contenders import OURS, STOCK, Contender, Step, ours, stock
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


#: By contender, at each value: milliseconds a step, repetition by repetition.
Times = dict[str, list[list[float]]]

#: Measures at some values.
Measure = Callable[[Sequence[int], Timing], Times]


@dataclass(frozen=True)
class Sweep:
    """One dimension.

    Attributes:
        label: of the axis.
        values: what is measured at, rising; times are told relative to the first.
        measure: measures at them.
    """

    label: str
    values: Sequence[int]
    measure: Measure


def interleaved_at(build: Callable[[int, torch.device], Mapping[str, Contender]]) -> Measure:
    """Measures contenders that are made for a value, everybody at every value in turn."""

    def measure(values: Sequence[int], timing: Timing) -> Times:
        torch.compiler.reset()
        at_values = [build(value, timing.device) for value in values]
        everybody = {(name, n): contender for n, made in enumerate(at_values) for name, contender in made.items()}
        with pyro.validation_enabled(False):
            steps = line_up({f"{name} {n}": each for (name, n), each in everybody.items()}, device=timing.device).steps
            ms = interleaved(steps, repetitions=timing.repetitions, least_seconds=timing.seconds, device=timing.device)
        return {name: [ms[f"{name} {n}"] for n in range(len(values))] for name in at_values[0]}

    return measure


def of_setting(name: str) -> Callable[[int, torch.device], Mapping[str, Contender]]:
    """Makes the contenders for a value of a setting, the others as in the base case."""

    def build(value: int, device: torch.device) -> Mapping[str, Contender]:
        settings = settings_for({"dataset": "color-mnist", "method": "avae", name: value})
        torch.manual_seed(0)
        x = torch.rand(settings.batch_size, *settings.image_shape, device=device)
        return {
            OURS: Contender(lambda: ours(settings, x)),
            STOCK: Contender(lambda: _in_own_store(lambda: stock(settings, TraceMeanField_ELBO(), x))),
        }

    return build


def _in_own_store(build: Callable[[], Step]) -> Step:
    """A step of Pyro's ``SVI``, whose parameters others of the same names do not meet; this takes microseconds."""
    store = pyro.get_param_store()
    with store.scope() as mine:
        step = build()

    def run() -> object:
        with store.scope(mine):
            return step()

    return run


def one_after_another(function: Callable[..., dict[str, list[float]]]) -> Measure:
    """Measures by a function of ``(value, device, repetitions, seconds)``, for what takes processes of its own."""

    def measure(values: Sequence[int], timing: Timing) -> Times:
        found: Times = {}
        for value in values:
            each = function(value, device=timing.device, repetitions=timing.repetitions, seconds=timing.seconds)
            for contender, times in each.items():
                found.setdefault(contender, []).append(times)
        return found

    return measure


SWEEPS: Mapping[str, Sweep] = {
    "batch": Sweep("images in a batch", (16, 64, 256, 1024, 4096), interleaved_at(of_setting("batch_size"))),
    "latent": Sweep("latent dimensions", (8, 32, 128, 512), interleaved_at(of_setting("latent_dim"))),
    "views": Sweep("views", (1, 2, 4, 8), interleaved_at(of_setting("num_views"))),
    "seeds": Sweep("seeds", (1, 2, 4, 8, 16), interleaved_at(several_seeds)),
    "ranks": Sweep("ranks that share a batch of 1024", (1, 2), one_after_another(on_ranks)),
}


def sweep(name: str, timing: Timing, *, values: Sequence[int] | None = None) -> dict[str, Any]:
    """One of :data:`SWEEPS`, or some values of it, as it stands in the JSON: label, values, and by contender ``ms`` (a
    list of times at each value) and ``relative`` (medians over the first value's).
    """
    chosen = SWEEPS[name]
    values = list(chosen.values if values is None else values)
    ms = chosen.measure(values, timing)
    for n, value in enumerate(values):
        shown = ", ".join(f"{contender} {median(times[n]):.2f} ms" for contender, times in ms.items())
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
