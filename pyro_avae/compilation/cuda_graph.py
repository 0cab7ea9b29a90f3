"""A whole step in one CUDA graph: loss, gradients, clipping and the optimiser, launched as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from pyro_avae.compilation.base_noise import Noise, NoiseSpec

__all__ = ["CudaRecorder", "RecordedStep", "Recorder", "can_be_recorded"]

#: Runs before recording: libraries choose their algorithms, the optimiser makes its state.
_WARM_UPS = 3

#: Computes a step from static tensors, and leaves its results in tensors of its own.
Body = Callable[[Sequence[Tensor], Sequence[Any]], list[Tensor]]


class Recorder(Protocol):
    """Records what a function does on the device."""

    def warm_up(self, body: Callable[[], object]) -> None:
        """Run it, apart from what else runs."""

    def record(self, body: Callable[[], list[Tensor]]) -> tuple[Callable[[], object], list[Tensor]]:
        """Record it; returns what runs it again, and the tensors that each run fills anew."""
        ...


class CudaRecorder:
    """Records a CUDA graph."""

    def warm_up(self, body: Callable[[], object]) -> None:
        """Run it on a stream of its own, as torch asks before a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            body()
        torch.cuda.current_stream().wait_stream(stream)

    def record(self, body: Callable[[], list[Tensor]]) -> tuple[Callable[[], object], list[Tensor]]:
        """Capture it; nothing is run yet."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = body()
        return graph.replay, results


def can_be_recorded(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
    """Whether a step with this optimiser can be in a CUDA graph: on CUDA, its step count on the device."""
    return device.type == "cuda" and all(group.get("capturable", False) for group in optimizer.param_groups)


class RecordedStep:
    """A step with static inputs, recorded once and run again and again.

    Warming up does real steps; parameters, buffers and the optimiser's state are put back afterwards, in place: what
    was recorded refers to these very tensors.

    Args:
        body: ``(noise, args)`` to results; it updates ``state`` and the optimiser's.
        args: arguments of the shape to come.
        specs: the noise that it wants.
        state: parameters and buffers.
        optimizer: what updates them.
        recorder: of the device.
    """

    def __init__(
        self,
        body: Body,
        args: Sequence[Any],
        *,
        specs: Sequence[NoiseSpec],
        state: Sequence[Tensor],
        optimizer: torch.optim.Optimizer,
        recorder: Recorder,
    ) -> None:
        self._specs = specs
        self._args = [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]
        self._noise = [torch.zeros(spec.shape, dtype=spec.dtype, device=spec.device) for spec in specs]
        before = [tensor.detach().clone() for tensor in state]
        then = _optimizer_tensors(optimizer)
        kept = {key: tensor.clone() for key, tensor in then.items()}
        for _ in range(_WARM_UPS):
            recorder.warm_up(lambda: body(self._noise, self._args))
        with torch.no_grad():
            for tensor, value in zip(state, before, strict=True):
                tensor.copy_(value)
            for key, tensor in _optimizer_tensors(optimizer).items():
                tensor.copy_(kept[key]) if key in kept else tensor.zero_()
        self._replay, self._results = recorder.record(lambda: body(self._noise, self._args))

    def __call__(self, source: Noise, args: Sequence[Any]) -> list[Tensor]:
        """One step on these arguments with the next noise; the results are copies."""
        for static, arg in zip(self._args, args, strict=True):
            if isinstance(static, Tensor):
                static.copy_(arg)
        for spec, into in zip(self._specs, self._noise, strict=True):
            source.fill(spec, into)
        self._replay()
        return [result.clone() for result in self._results]


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], Tensor]:
    """The optimiser's state by parameter and name."""
    return {
        (id(parameter), name): value
        for parameter, values in optimizer.state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
