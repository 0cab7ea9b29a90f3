"""The processes that train one run together: what they share, and how they agree."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, distributed

from pyro_avae.errors import InputError, RankError

__all__ = ["OneRank", "Ranks", "TorchRanks"]


class Ranks(Protocol):
    """N processes with a part of every batch each; rank 0 writes what there is to write."""

    @property
    def rank(self) -> int:
        """0, ..., N - 1."""
        ...

    @property
    def count(self) -> int:
        """N."""
        ...

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its mean over the ranks."""

    def most(self, value: float) -> float:
        """The largest of the ranks' values."""
        ...

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, of any kind that can be pickled."""
        ...


class OneRank:
    """A process that trains alone."""

    rank, count = 0, 1

    def average(self, tensors: Sequence[Tensor]) -> None: ...

    def most(self, value: float) -> float:
        return value

    def from_first(self, value: Any) -> Any:
        return value


class TorchRanks:
    """The processes of torch's default group, made by Lightning Fabric, ``torchrun`` or by hand.

    Args:
        device: where tensors are that are exchanged; gloo exchanges the CPU's, NCCL those of GPUs.

    Raises:
        InputError: there is no group.
    """

    def __init__(self, device: torch.device) -> None:
        if not distributed.is_initialized():
            raise InputError("ranks: expected a process group, got none; start it by Fabric or init_process_group")
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()
        self._device = device

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its mean over the ranks, all in one exchange for each dtype."""
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            alike = [tensor for tensor in tensors if tensor.dtype == dtype]
            together = torch.cat([tensor.detach().flatten() for tensor in alike])
            self._exchange(partial(distributed.all_reduce, together))
            together /= self.count
            with torch.no_grad():
                for tensor, part in zip(alike, together.split([t.numel() for t in alike]), strict=True):
                    tensor.copy_(part.view_as(tensor))

    def most(self, value: float) -> float:
        """The largest of the ranks' values."""
        found = torch.tensor(value, dtype=torch.float64, device=self._device)
        self._exchange(lambda: distributed.all_reduce(found, distributed.ReduceOp.MAX))
        return float(found)

    def from_first(self, value: Any) -> Any:
        """Rank 0's value."""
        values = [value]
        self._exchange(lambda: distributed.broadcast_object_list(values, device=self._device))
        return values[0]

    def _exchange(self, deed: Callable[[], object]) -> None:
        try:
            deed()
        except RuntimeError as error:  # gloo and NCCL know nothing finer
            raise RankError(
                f"rank {self.rank} of {self.count}: another process of this training has ended or cannot be reached"
                f" ({str(error).splitlines()[-1][:200]})"
            ) from error
