"""Options that the measurements share, refused before anything is measured."""

import argparse
import os
from pathlib import Path

import torch

__all__ = ["add_shared", "count", "new_file", "prepare"]


def add_shared(parser: argparse.ArgumentParser) -> None:
    """Device, threads, how often and how long, and where the numbers go."""
    cuda = torch.cuda.is_available()
    parser.add_argument("--device", type=_device, default=torch.device("cuda" if cuda else "cpu"), help="cpu or cuda")
    parser.add_argument("--threads", type=count, default=None, help="of the CPU (default: torch's)")
    parser.add_argument("--repetitions", type=count, default=9, help="timings of each contender")
    parser.add_argument("--seconds", type=_seconds, default=0.5, help="that one timing lasts at least")
    parser.add_argument("--json", type=new_file, default=None, help="write all times there")


def prepare(args: argparse.Namespace) -> None:
    """Do what the options say that concerns the whole process."""
    # The profiler, which counts memory, tells when it starts and stops, unless told otherwise before its first use.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if args.threads is not None:
        torch.set_num_threads(args.threads)


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def new_file(text: str) -> Path:
    """A file in a folder that is there: an hour later would be the wrong time to find out."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists, got {text!r}")
    return path


def _device(text: str) -> torch.device:
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got {text!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"expected a device of this machine, got {text!r}; it has no such GPU")
    return device


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return seconds
