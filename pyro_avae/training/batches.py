"""The order of the images: epoch after epoch, each a permutation of its own."""

import torch
from torch import Tensor

from pyro_avae.randomness import stream_seed

__all__ = ["EpochOrder"]


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
        part: ``(r, N)`` for rank r of N, which takes the r-th of N equal parts of every batch.

    Example:
        >>> order = EpochOrder(4, 2, seed=0, device=torch.device("cpu"))
        >>> sorted(torch.cat([order(0), order(1)]).tolist()), torch.equal(order(0), order(2))
        ([0, 1, 2, 3], False)
    """

    def __init__(
        self, count: int, batch_size: int, *, seed: int, device: torch.device, part: tuple[int, int] = (0, 1)
    ) -> None:
        self.count, self.batch_size, self.seed, self.device = count, batch_size, seed, device
        self._epochs: dict[int, Tensor] = {}
        rank, ranks = part
        self._part = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)

    def __call__(self, step: int) -> Tensor:
        """The indices of the batch of step 0, 1, ..., int64 ``(B,)``, or of this rank's part."""
        epoch, start = divmod(step * self.batch_size, self.count)
        indices = self._permutation(epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(indices)
        whole = torch.cat([indices, self._permutation(epoch + 1)[:missing]]) if missing else indices
        return whole[self._part]

    def _permutation(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(stream_seed(self.seed, "order", epoch))
            permutation = torch.randperm(self.count, generator=generator)
            if self.device.type == "cuda":
                permutation = permutation.pin_memory()
            kept = {number: order for number, order in self._epochs.items() if number == epoch - 1}
            self._epochs = {**kept, epoch: permutation.to(self.device, non_blocking=True)}
        return self._epochs[epoch]
