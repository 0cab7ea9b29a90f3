"""Timing contenders side by side: interleaved, so that what slows the machine down slows them all."""

import statistics
import time
from collections.abc import Callable, Mapping

import torch

__all__ = ["fastest", "interleaved", "ratios"]


def interleaved(
    contenders: Mapping[str, Callable[[], object]], *, repetitions: int, least_seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Milliseconds a call, ``repetitions`` of each contender, in turn.

    Args:
        contenders: by name; each is called several times before it is timed.
        repetitions: how often each is timed.
        least_seconds: how long one timing lasts at least; the calls in it are averaged.
        device: waited for before the clock is read.
    """
    calls = {name: _calls(call, least_seconds, device) for name, call in contenders.items()}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for repetition in range(repetitions):
        # Every other time backwards: a machine that slows down steadily favours nobody.
        for name in list(contenders)[:: 1 if repetition % 2 == 0 else -1]:
            found[name].append(1e3 * _seconds(contenders[name], calls[name], device) / calls[name])
    return found


def ratios(times: Mapping[str, list[float]], name: str, to: str) -> tuple[float, float, float]:
    """Lowest, median and highest of the ratios of two contenders, repetition by repetition."""
    each = sorted(one / other for one, other in zip(times[name], times[to], strict=True))
    return each[0], statistics.median(each), each[-1]


def fastest(call: Callable[[], object], *, device: torch.device, least_seconds: float, repetitions: int = 3) -> float:
    """Seconds a call in the fastest of a few timings: what the device can do, not what it does on average."""
    calls = _calls(call, least_seconds, device)
    return min(_seconds(call, calls, device) for _ in range(repetitions)) / calls


def _calls(call: Callable[[], object], least_seconds: float, device: torch.device) -> int:
    for _ in range(3):
        call()
    return max(1, round(least_seconds / max(_seconds(call, 3, device) / 3, 1e-6)))


def _seconds(call: Callable[[], object], count: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
