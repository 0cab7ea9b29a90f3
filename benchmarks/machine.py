"""What was measured on: the versions and the machine, as they stand beside the numbers."""

import platform
from contextlib import suppress
from pathlib import Path

import pyro
import torch

__all__ = ["described"]


def described(device: torch.device) -> dict[str, dict[str, str | int]]:
    """Versions and machine, by name."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__},
        "machine": {"device": str(device), "threads": torch.get_num_threads(), "processor": hardware},
    }


def _processor() -> str:
    """What the processor is called, where the system says so."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
