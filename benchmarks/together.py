"""Steps that share what single ones would do apart: several seeds in one, one batch on several ranks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pyro
import torch
from torch import Tensor, distributed

from benchmarks.contenders import Contender, Step
from benchmarks.timing import interleaved
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.triples import make_triple
from pyro_avae.runs.settings import Settings
from pyro_avae.training.ranks import OneRank, Ranks, TorchRanks
from pyro_avae.training.step import SVIStep

__all__ = ["ALL_AT_ONCE", "ONE_BY_ONE", "on_ranks", "several_seeds"]

ALL_AT_ONCE, ONE_BY_ONE, SHARED = "all seeds in one step", "one seed after the other", "ours, compiled"


def several_seeds(count: int, device: torch.device) -> dict[str, Contender]:
    """Steps in which ``count`` seeds do one each, together and apart."""
    settings, x = _case(64, device)
    batches = [x.roll(number, 0) for number in range(count)]

    def apart() -> Step:
        steps = [_compiled(settings, [seed], [batch], OneRank()) for seed, batch in enumerate(batches)]

        def each() -> None:
            for step in steps:
                step()

        return each

    return {
        ALL_AT_ONCE: Contender(lambda: _compiled(settings, list(range(count)), batches, OneRank())),
        ONE_BY_ONE: Contender(apart),
    }


def on_ranks(count: int, *, device: torch.device, repetitions: int, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of a step on a batch of 1024 that ``count`` processes share, one thread each on a CPU."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.together", device.type, str(repetitions), str(seconds)]
    processes = [
        subprocess.Popen(command, env={**os.environ, **common, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(count)
    ]
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"ranks: a process of {count} failed, see above")
    found: list[float] = json.loads(outputs[0].splitlines()[-1])
    return {SHARED: found}


def _case(batch_size: int, device: torch.device) -> tuple[Settings, Tensor]:
    settings = settings_for({"dataset": "color-mnist", "method": "avae", "batch_size": batch_size})
    torch.manual_seed(0)
    return settings, torch.rand(batch_size, *settings.image_shape, device=device)


def _compiled(settings: Settings, seeds: list[int], batches: list[Tensor], ranks: Ranks) -> Callable[[], None]:
    triples = [make_triple(replace(settings, seed=seed)) for seed in seeds]
    device = batches[0].device
    pairs = [(model.to(device).train(), guide.to(device).train()) for model, guide, _ in triples]
    step = SVIStep(pairs, triples[0].elbo, lr=1e-4, device=device, seeds=seeds, example=lambda: batches[0], ranks=ranks)
    step.compile(*batches)
    return lambda: step(*batches)


def _rank(device_type: str, repetitions: int, seconds: float) -> None:
    """One process of :func:`on_ranks`; the first prints its times. All do equally many steps."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device(device_type, rank) if device_type == "cuda" else torch.device(device_type)
    distributed.init_process_group("nccl" if device_type == "cuda" else "gloo")
    ranks = TorchRanks(device)
    settings, x = _case(1024, device)
    with pyro.validation_enabled(False):
        step = _compiled(settings, [0], [x.chunk(count)[rank]], ranks)
    alone = interleaved({SHARED: step}, repetitions=1, least_seconds=0.0, device=device)[SHARED][0]
    calls = int(ranks.most(max(1.0, 1e3 * seconds / alone)))

    def several() -> None:
        for _ in range(calls):
            step()

    found = [
        interleaved({SHARED: several}, repetitions=1, least_seconds=0.0, device=device)[SHARED][0] / calls
        for _ in range(repetitions)
    ]
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    _rank(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
