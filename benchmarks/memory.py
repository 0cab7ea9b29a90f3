"""Peak memory of a step: the most bytes of tensors that are alive at once."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.autograd.profiler import profile

__all__ = ["held_bytes", "peak_bytes"]


def peak_bytes(call: Callable[[], object], *, device: torch.device, held: int = 0) -> int:
    """The most bytes alive during a call that was made before.

    On a CPU these are the tensors that calls allocate: gradients and activations, not parameters and the optimiser's
    state, which were there before and are the same for everybody; nor what a library takes without torch's allocator.
    On CUDA it is everything above ``held``.

    Args:
        call: does a step, after its warm-up.
        device: where.
        held: on CUDA, :func:`held_bytes` before the contender was made.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) + _recorded(device) - held
    # The second call counts: what it finds, such as gradients that it replaces, the first has allocated.
    with profile(profile_memory=True, use_kineto=False) as profiled:
        call()
        call()
    alive: dict[int, int] = {}
    live = most = 0
    for _, address, size in sorted(_allocations(profiled.kineto_results.experimental_event_tree())):
        if size > 0:
            alive[address] = size
        else:
            # What was there before is not counted, so that its end is not either.
            size = -alive.pop(address, 0)
        live += size
        most = max(most, live)
    return most


def held_bytes(device: torch.device) -> int:
    """Bytes that are taken now, on CUDA; 0 elsewhere, where nobody needs it."""
    return torch.cuda.memory_allocated(device) + _recorded(device) if device.type == "cuda" else 0


def _allocations(events: Iterable[Any]) -> Iterator[tuple[int, int, int]]:
    """Time in ns, address, and bytes, negative where they are given back."""
    for event in events:
        if event.tag == torch._C._profiler._EventType.Allocation:
            yield event.start_time_ns, event.extra_fields.ptr, event.extra_fields.alloc_size
        yield from _allocations(event.children)


def _recorded(device: torch.device) -> int:
    """Bytes that recorded CUDA graphs keep for what lies between, which counts as not allocated."""
    segments = torch.cuda.memory_snapshot()
    index = device.index if device.index is not None else torch.cuda.current_device()
    return sum(
        segment["total_size"] - segment["allocated_size"]
        for segment in segments
        if segment["device"] == index and tuple(segment["segment_pool_id"]) != (0, 0)
    )
