"""The processes of a training on several devices or machines, started or found by Lightning Fabric."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

import torch

from pyro_avae.errors import InputError
from pyro_avae.training.ranks import TorchRanks

__all__ = ["launch", "launched_by_torchrun"]

#: Seconds in which the others are to find out that a process has ended.
_GRACE = 30


def launched_by_torchrun(environment: Mapping[str, str] | None = None) -> tuple[int, int] | None:
    """``(devices, nodes)`` where ``torchrun`` has started this process, else None.

    Example:
        >>> launched_by_torchrun({"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
        (4, 2)
    """
    found = os.environ if environment is None else environment
    if "TORCHELASTIC_RUN_ID" not in found:
        return None
    devices = int(found["LOCAL_WORLD_SIZE"])
    return devices, int(found["WORLD_SIZE"]) // devices


def launch(*, devices: int, nodes: int, device_type: str) -> tuple[TorchRanks, torch.device]:
    """Start this program ``devices`` times on this machine, or join those that torchrun or SLURM have started.

    What comes after the call is run by every process, on a device of its own. On several machines without torchrun or
    SLURM the program is started on each, with ``MASTER_ADDR``, ``MASTER_PORT`` and ``NODE_RANK`` in its environment.

    Args:
        devices: processes on each machine.
        nodes: machines.
        device_type: ``"cpu"`` (gloo) or ``"cuda"`` (NCCL).

    Raises:
        InputError: Lightning Fabric is not installed, or there are not so many devices.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise InputError(
            "--devices: several devices need Lightning Fabric; install it with: pip install 'pyro-avae[distributed]'"
        ) from None
    if device_type == "cuda" and devices > torch.cuda.device_count():
        raise InputError(f"--devices: expected at most the {torch.cuda.device_count()} GPUs here, got {devices}")
    fabric = Fabric(accelerator=device_type, devices=devices, num_nodes=nodes, strategy="ddp")
    fabric.launch()
    _give_time_to_speak()
    return TorchRanks(fabric.device), fabric.device


def _give_time_to_speak() -> None:
    """Replace Fabric's watch over the processes that it started, which kills all as soon as it sees that one has ended.

    The others find that out by themselves and say so, but where a collective waits for ever: those are ended here.
    """
    for thread in threading.enumerate():
        processes: list[subprocess.Popen[bytes]] = getattr(thread, "_child_processes", [])
        if thread.name == "child-process-observer" and processes:
            thread._child_processes = []  # type: ignore[attr-defined]
            threading.Thread(target=_watch, args=(processes,), daemon=True, name="pyro_avae-ranks").start()


def _watch(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    while any(process.poll() is None for process in processes):
        if any(process.returncode for process in processes):
            break
        time.sleep(1)
    if not any(process.returncode for process in processes):
        return
    time.sleep(_GRACE)
    print("pyro-avae: error: another process of this training has ended, and this one cannot go on", file=sys.stderr)
    for process in processes:
        process.kill()
    os._exit(2)
