"""What is trained on, and in which order: epoch after epoch, each a permutation of its own."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.randomness import stream_seed

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["EpochOrder", "NoData", "TensorSource", "TrainingData", "as_source"]


class TrainingData(Protocol):
    """What training asks of its data; :class:`~pyro_avae.data.Split` has it."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The images at ``indices``, randomly augmented from ``generator``, and something that is not looked at."""
        ...


@dataclass(frozen=True, eq=False)
class TensorSource:
    """A plain tensor ``(N, *event)`` as training data."""

    values: Tensor

    def __len__(self) -> int:
        return self.values.shape[0]

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        """The rows at ``indices``; nothing is drawn from ``generator``."""
        return self.values[indices], None


@dataclass(frozen=True, eq=False)
class NoData:
    """Training data of a method that looks at none: batches ``(B, 0)``, of which the number of rows is all there is.

    Args:
        count: how many make an epoch.
        device: where the batches are.
    """

    count: int = 60_000
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return self.count

    def to(self, device: torch.device) -> "NoData":
        """The same on another device."""
        return NoData(self.count, device)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        """An empty row for each index."""
        return torch.empty(len(indices), 0, device=self.device), None


def as_source(data: "ImageData | Split | TrainingData | Tensor", device: torch.device) -> TrainingData:
    """Training data of what a user passes, on ``device``: of an ``ImageData`` the training split.

    Raises:
        InputError: none of these, or a tensor that is not of floats, is empty or has numbers that are not finite.
    """
    if isinstance(data, Tensor):
        return TensorSource(_checked(data.to(device)))
    split: Any = getattr(data, "train", data)
    if not hasattr(split, "batch") or not hasattr(split, "__len__"):
        raise InputError(f"data: expected an ImageData, a Split or a tensor (N, *event), got {type(data).__name__}")
    source: TrainingData = split.to(device) if hasattr(split, "to") else split
    return source


def _checked(values: Tensor) -> Tensor:
    if not values.is_floating_point() or values.dim() < 2 or len(values) == 0:
        raise InputError(
            f"data: expected a float tensor (N, *event) with N >= 1, got {values.dtype} of shape {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise InputError("data: expected finite numbers, got some that are NaN or infinite")
    return values.detach()


class EpochOrder:
    """Which images make the batch of which step.

    The permutations of epoch 0, 1, 2, ... follow one another, and step k takes the next B of them: every batch has
    B images, and every epoch has every image once. The permutation of an epoch depends on the seed and its number
    alone, so a step's batch needs nothing but the step: that is all that a resumed run has to know.

    Args:
        count: number of images N.
        batch_size: B, at most N.
        seed: the run's seed.
        device: where the indices are wanted.

    Example:
        >>> order = EpochOrder(4, 2, seed=0, device=torch.device("cpu"))
        >>> sorted(torch.cat([order(0), order(1)]).tolist()), torch.equal(order(0), order(2))
        ([0, 1, 2, 3], False)
    """

    def __init__(self, count: int, batch_size: int, *, seed: int, device: torch.device) -> None:
        self.count, self.batch_size, self.seed, self.device = count, batch_size, seed, device
        self._epochs: dict[int, Tensor] = {}

    def __call__(self, step: int) -> Tensor:
        """The indices of the batch of step 0, 1, ..., int64 ``(B,)``."""
        epoch, start = divmod(step * self.batch_size, self.count)
        indices = self._permutation(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(indices)
        return torch.cat([indices, self._permutation(epoch + 1)[:missing]]) if missing else indices

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", epoch))
            permutation = torch.randperm(self.count, generator=generator)
            if self.device.type == "cuda":
                permutation = permutation.pin_memory()
            kept = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            self._epochs = {**kept, epoch: permutation.to(self.device, non_blocking=True)}
        return self._epochs[epoch]
