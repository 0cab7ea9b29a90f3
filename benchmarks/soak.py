"""Train and evaluate again and again in one process, and watch its memory.

python -m benchmarks.soak [--minutes 60] [--eager] [--json FILE] [--plot FILE]

A round trains an AVAE on the embedded digits, stops half way, goes on from its checkpoint (every other round compiled,
none with ``--eager``), and evaluates the run by a probe and an attack; then the run is removed. After each round the
process's resident memory is noted, and what is left of it when the C library has given back what is free: the first
goes up and down with what that library keeps for later, the second is what the process holds. What the first rounds
load (inductor, scikit-learn) stays; a leak goes on growing, and the slopes over the second half of the rounds, in MiB
per hour, show it.
"""

import argparse
import ctypes
import gc
import json
import tempfile
import time
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.machine import described
from benchmarks.options import new_file
from pyro_avae.experiments.cli import main as command_line

__all__ = ["Sample", "main", "round_of", "slope"]

TRAIN = ["--method", "avae", "--hidden", "64", "--latent-dim", "8", "--lr", "1e-3", "--device", "cpu", "--no-progress"]
EVALUATE = ["--limit", "100", "--steps", "5", "--restarts", "1", "--device", "cpu", "--no-progress"]
STEPS = 400


class Sample(NamedTuple):
    """Seconds since the start; the process's resident memory in MiB, and what it holds of it."""

    seconds: float
    resident: float
    held: float


def resident() -> float:
    """Resident memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmRSS: this takes Linux")


def held() -> float:
    """Resident memory in MiB once the C library has given back what is free; where it cannot, as it is."""
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if give_back is not None:
        give_back(0)
    return resident()


def round_of(number: int, folder: Path, *, compiled: bool) -> None:
    """Train half, resume, evaluate."""
    run, how = folder / f"run-{number}", "--compile" if compiled else "--no-compile"
    words = ["train", *TRAIN, how, "--seed", str(number), "--out", str(run), "--checkpoint-every", "50"]
    _call([*words, "--steps", str(STEPS), "--log-every", "50"])
    # As after a kill: the newest checkpoint is gone, training goes on from the one before.
    newest = sorted((run / "checkpoints").glob("step-*.json"))[-1]
    newest.unlink()
    _call(["train", "--resume", "--out", str(run), "--device", "cpu", "--no-progress"])
    _call(["evaluate", str(run), *EVALUATE])


def slope(seconds: list[float], mebibytes: list[float]) -> tuple[float, float]:
    """MiB per hour over the second half, by least squares, and its standard error."""
    start = len(seconds) // 2
    hours, memory = np.array(seconds[start:]) / 3600, np.array(mebibytes[start:])
    centred = hours - hours.mean()
    rate = float(centred @ memory / (centred @ centred))
    residual = memory - memory.mean() - rate * centred
    error = float(np.sqrt(residual @ residual / max(len(hours) - 2, 1) / (centred @ centred)))
    return rate, error


def main(argv: list[str] | None = None) -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--eager", action="store_true", help="compile nothing")
    parser.add_argument("--json", type=new_file, default=None, help="write all samples there")
    parser.add_argument("--plot", type=new_file, default=None, help="draw them there")
    args = parser.parse_args(argv)
    samples: list[Sample] = []
    start = time.monotonic()
    while len(samples) < 4 or time.monotonic() - start < 60 * args.minutes:
        with tempfile.TemporaryDirectory() as folder:
            round_of(len(samples), Path(folder), compiled=len(samples) % 2 == 1 and not args.eager)
        gc.collect()
        samples.append(Sample(time.monotonic() - start, resident(), held()))
        now = samples[-1]
        print(f"{now.seconds / 60:6.1f} min  {now.resident:7.1f} MiB resident, {now.held:7.1f} held", flush=True)
    seconds = [sample.seconds for sample in samples]
    slopes = {name: slope(seconds, [getattr(sample, name) for sample in samples]) for name in ("resident", "held")}
    said = ", ".join(f"{name} {rate:+.1f} ± {error:.1f}" for name, (rate, error) in slopes.items())
    print(f"{len(samples)} rounds; second half, MiB per hour: {said}")
    rounds = [sample._asdict() for sample in samples]
    document = {"samples": rounds, "slopes": slopes, **described(torch.device("cpu"))}
    if args.json is not None:
        args.json.write_text(json.dumps(document, indent=2) + "\n")
    if args.plot is not None:
        _plot(samples, args.plot)


def _call(words: list[str]) -> None:
    with redirect_stdout(StringIO()) as out:
        status = command_line(words)
    if status:
        raise SystemExit(f"{' '.join(words)}: status {status}\n{out.getvalue()}")


def _plot(samples: list[Sample], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    for name in ("resident", "held"):
        axes.plot(
            [sample.seconds / 60 for sample in samples], [getattr(sample, name) for sample in samples], ".-", label=name
        )
    axes.set(xlabel="minutes", ylabel="memory (MiB)", ylim=(0, None))
    axes.legend(loc="lower right")
    figure.savefig(path)


if __name__ == "__main__":
    main()
