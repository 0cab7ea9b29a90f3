"""The floor: what a step takes at least, were it nothing but arithmetic, or nothing but moving its state."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.contenders import pair
from benchmarks.flops import count, flop_rate, operations, traced_call
from benchmarks.timing import fastest
from pyro_avae.runs.settings import Settings

__all__ = ["Floor", "bytes_moved", "copy_rate", "floor_of"]


@dataclass(frozen=True)
class Floor:
    """Two lower bounds of a step's time.

    Attributes:
        flops: floating-point operations of loss and gradients.
        flop_rate: of the device, a second.
        bytes: that move to and from memory.
        byte_rate: of the device, a second.
    """

    flops: int
    flop_rate: float
    bytes: int
    byte_rate: float

    @property
    def flops_ms(self) -> float:
        """Milliseconds of the arithmetic."""
        return 1e3 * self.flops / self.flop_rate

    @property
    def bytes_ms(self) -> float:
        """Milliseconds of the moving."""
        return 1e3 * self.bytes / self.byte_rate

    @property
    def ms(self) -> float:
        """The larger of the two, which may go on at the same time."""
        return max(self.flops_ms, self.bytes_ms)


def bytes_moved(parameters: Iterable[Tensor], inputs: Iterable[Tensor]) -> int:
    r"""Bytes that a step of Adam moves at least, :math:`2 (P + G + 2P) + X` with :math:`G = P`.

    Parameters, gradients and Adam's two moments, each read once and written once, and the inputs read once. What lies
    between, activations and noise, may stay in a cache or a register and does not count.
    """
    return 8 * _bytes(parameters) + _bytes(inputs)


def copy_rate(size: int, *, device: torch.device, seconds: float) -> float:
    """Bytes a second of a copy, those read and those written, between tensors of ``size`` bytes together.

    The size matters where the state fits into a cache.
    """
    source = torch.rand(max(1, size // 8), device=device)
    into = torch.empty_like(source)
    return 2 * _bytes([source]) / fastest(lambda: into.copy_(source), device=device, least_seconds=seconds)


def floor_of(settings: Settings, x: Tensor, *, seconds: float) -> Floor:
    """The floor of a step on this batch; the operations are those of the traced graph.

    Args:
        settings: of the pair.
        x: the batch.
        seconds: how long one timing lasts at least.
    """
    call = traced_call(settings, x)
    model, guide, _ = pair(settings, x)
    parameters = {id(p): p for module in (model, guide) for p in module.parameters()}.values()
    return Floor(
        flops=count(call),
        flop_rate=flop_rate(operations(call), device=x.device, dtype=x.dtype, seconds=seconds),
        bytes=bytes_moved(parameters, [x]),
        byte_rate=copy_rate(4 * _bytes(parameters), device=x.device, seconds=seconds),
    )


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
