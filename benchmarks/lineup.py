"""Who takes part: contenders made, tried and weighed, one after the other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from benchmarks.contenders import Contender, Step
from benchmarks.memory import held_bytes, peak_bytes

__all__ = ["Lineup", "line_up"]

#: Steps before memory is measured: what is compiled or allocated once is behind us.
_WARM_UPS = 3


@dataclass
class Lineup:
    """Contenders that run.

    Attributes:
        steps: by name.
        peaks: the peak memory of a step in bytes, by name; none of who allocates nothing through torch.
        left_out: why others do not take part, in one line, by name.
    """

    steps: dict[str, Step] = field(default_factory=dict)
    peaks: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def line_up(contenders: Mapping[str, Contender], *, device: torch.device) -> Lineup:
    """Make each contender, have it do its first steps, and measure its memory while no other does anything.

    An optional one that raises an exception is left out; an exception of any other is the caller's.
    """
    made = Lineup()
    for name, contender in contenders.items():
        held = held_bytes(device)
        try:
            step = contender.build()
            for _ in range(_WARM_UPS):
                step()
        except Exception as error:
            if not contender.optional:
                raise
            made.left_out[name] = _one_line(error)
            continue
        made.steps[name] = step
        if peak := peak_bytes(step, device=device, held=held):
            made.peaks[name] = peak
    return made


def _one_line(error: Exception) -> str:
    first, *_ = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {first}"
