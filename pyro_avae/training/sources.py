"""What training reads: where images lie, what a step is given of them, and what it makes of that itself."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.randomness import stream_seed

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["NoData", "Resident", "Source", "Streamed", "TrainingData", "UserData", "as_source"]

#: Bytes of images that are put onto a device whole; more are read from the host, batch by batch.
MOST_ON_DEVICE = 1 << 30

#: Batches that are read ahead.
_AHEAD = 2


class TrainingData(Protocol):
    """Training data of one's own."""

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Any]:
        """The images at ``indices``, randomly augmented from ``generator``, and something that is not looked at."""
        ...


class Source(Protocol):
    """The two halves of a batch: what a step is given, and the images that it makes of that, random parts included."""

    def __len__(self) -> int:
        """How many images there are."""
        ...

    def argument(self, order: Callable[[int], Tensor], step: int) -> Tensor:
        """What step 0, 1, ... is given; ``order(step)`` are the indices of its images, on any device."""
        ...

    def images(self, argument: Tensor) -> Tensor:
        """The batch, made within the step: random numbers come from torch's global generator, where a step finds them.

        Called while a step is traced, so it may not look at numbers.
        """
        ...

    def close(self) -> None:
        """Training has ended."""


@dataclass(frozen=True, eq=False)
class Resident:
    """Images that lie on the device, of which a step is given the indices.

    Args:
        count: how many there are.
        device: where they are.
        at: images of indices.
    """

    count: int
    device: torch.device
    at: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return self.count

    def argument(self, order: Callable[[int], Tensor], step: int) -> Tensor:
        return order(step).to(self.device)

    def images(self, argument: Tensor) -> Tensor:
        return self.at(argument)

    def close(self) -> None: ...


class NoData:
    """Training data of a method that looks at none: batches ``(B, 0)``, of which the number of rows is all there is.

    Args:
        count: how many make an epoch.
    """

    def __init__(self, count: int = 60_000) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def source(self, device: torch.device) -> Resident:
        """The same as what steps read."""
        return Resident(self.count, device, lambda indices: torch.empty(len(indices), 0, device=device))


class Streamed:
    """Images on the host, memory-mapped perhaps: a thread reads the next batches as uint8, pinned for a GPU.

    What is random, and the conversion to floats, is the step's.

    Args:
        split: the images.
        device: where steps want them.
    """

    def __init__(self, split: "Split", device: torch.device) -> None:
        self._split, self._device = split, device
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="pyro_avae-batches")
        self._read: dict[int, Future[Tensor]] = {}

    def __len__(self) -> int:
        return len(self._split)

    def argument(self, order: Callable[[int], Tensor], step: int) -> Tensor:
        # The order is asked here: it is not made for two threads.
        for number in range(step, step + 1 + _AHEAD):
            if number not in self._read:
                self._read[number] = self._reader.submit(self._pixels, order(number).cpu())
        wanted = self._read[step]
        self._read = {number: read for number, read in self._read.items() if number > step}
        return wanted.result().to(self._device, non_blocking=True)

    def images(self, argument: Tensor) -> Tensor:
        return self._split.augmented(argument)

    def close(self) -> None:
        """End the thread."""
        self._reader.shutdown(cancel_futures=True)

    def _pixels(self, indices: Tensor) -> Tensor:
        pixels = self._split.pixels(indices)
        return pixels.pin_memory() if self._device.type == "cuda" else pixels


class UserData:
    """Data of a user's own, whose batches are made outside the step, from a generator of the step's own.

    Args:
        data: what they are asked of.
        seed: the run's.
        device: where the generator is.
        rank: of the ranks that share a batch; each draws from a stream of its own.
    """

    def __init__(self, data: TrainingData, *, seed: int, device: torch.device, rank: int = 0) -> None:
        self._data, self._stream, self._device = data, stream_seed(seed, "augmentation", rank), device

    def __len__(self) -> int:
        return len(self._data)

    def argument(self, order: Callable[[int], Tensor], step: int) -> Tensor:
        generator = torch.Generator(self._device).manual_seed(stream_seed(self._stream, "batch", step))
        return self._data.batch(order(step), generator)[0]

    def images(self, argument: Tensor) -> Tensor:
        return argument

    def close(self) -> None: ...


def as_source(
    data: "ImageData | Split | TrainingData | NoData | Tensor", device: torch.device, *, seed: int = 0, rank: int = 0
) -> Source:
    """What steps read of what a user passes: of an ``ImageData`` the training split.

    Args:
        data: an ``ImageData``, a ``Split``, a tensor, or data of one's own.
        device: where the steps are.
        seed: the run's.
        rank: of the ranks that share a batch.

    Raises:
        InputError: none of these, or a tensor that is not of floats, is empty or has numbers that are not finite.
    """
    if isinstance(data, Tensor):
        values = _checked(data).to(device)
        return Resident(len(values), device, lambda indices: values[indices])
    if isinstance(data, NoData):
        return data.source(device)
    split: Any = getattr(data, "train", data)
    if hasattr(split, "pixels") and hasattr(split, "augmented"):
        if device.type != split.device.type and split.images.nbytes > MOST_ON_DEVICE:
            return Streamed(split, device)
        there = split.to(device)
        return Resident(len(there), device, lambda indices: there.augmented(there.pixels(indices)))
    if not hasattr(split, "batch") or not hasattr(split, "__len__"):
        raise InputError(f"data: expected an ImageData, a Split or a tensor (N, *event), got {type(data).__name__}")
    return UserData(split, seed=seed, device=device, rank=rank)


def _checked(values: Tensor) -> Tensor:
    odd = values.layout != torch.strided or values.is_meta
    if odd or not values.is_floating_point() or values.dim() < 2 or len(values) == 0:
        raise InputError(
            f"data: expected a float tensor (N, *event) with N >= 1, got {values.dtype} of shape {tuple(values.shape)}"
            f"{f', {values.layout} on {values.device}' if odd else ''}"
        )
    if not bool(values.isfinite().all()):
        raise InputError("data: expected finite numbers, got some that are NaN or infinite")
    return values.detach()
