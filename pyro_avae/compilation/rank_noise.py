"""One rank's part of the noise of a whole batch."""

from collections.abc import Sequence

from torch import Tensor

from pyro_avae.compilation.base_noise import Noise, NoiseSpec
from pyro_avae.errors import InputError

__all__ = ["RankNoise"]


class RankNoise:
    """Of the noise of a batch of N·B rows, the part that belongs to rank r: rows r·B to (r + 1)·B.

    Every rank draws the whole batch's noise from the same seed and keeps its own part, so that N ranks with B rows each
    have the numbers of one with N·B. Which dimension holds the rows is seen by comparing what the program draws for
    both numbers of rows; particles in front of them, flattened into one dimension with them or not, keep their place.

    Args:
        source: of the whole batch's noise.
        rank: r.
        count: N.
        rows: B.
        part: what the program draws for B rows, in order.
        whole: what it draws for N·B rows.

    Raises:
        InputError: noise whose number is no whole multiple of the rows', or of another kind or count.

    Example:
        >>> import torch
        >>> from pyro_avae.compilation.base_noise import NoiseSource
        >>> def spec(rows):
        ...     return NoiseSpec("normal", (rows, 2), torch.float32, torch.device("cpu"))
        >>> ranks = [RankNoise(NoiseSource(0), r, 2, 3, part=[spec(3)], whole=[spec(6)]) for r in (0, 1)]
        >>> source = NoiseSource(0)
        >>> for each in (*ranks, source):
        ...     each.start(1)
        >>> torch.equal(torch.cat([rank.draw(spec(3)) for rank in ranks]), source.draw(spec(6)))
        True
    """

    def __init__(
        self, source: Noise, rank: int, count: int, rows: int, *, part: Sequence[NoiseSpec], whole: Sequence[NoiseSpec]
    ) -> None:
        self._source, self._rank, self._count, self._rows = source, rank, count, rows
        if len(part) != len(whole):
            raise InputError(
                f"ranks: the program draws {len(part)} times for {rows} rows and {len(whole)} times for"
                f" {count * rows}; train it on one device"
            )
        self._dimensions = [self._dimension(*pair) for pair in zip(part, whole, strict=True)]
        self._whole = list(whole)
        self._next = 0

    def start(self, step: int) -> None:
        """Begin the draws of step 1, 2, ..."""
        self._source.start(step)
        self._next = 0

    def draw(self, spec: NoiseSpec) -> Tensor:
        """The next noise of this step, this rank's part."""
        whole, dimension = self._source.draw(self._whole[self._next]), self._dimensions[self._next]
        self._next += 1
        if dimension is None:
            return whole
        parts = whole.unflatten(dimension, (-1, self._count, self._rows))
        return parts.select(dimension + 1, self._rank).flatten(dimension, dimension + 1).contiguous()

    def fill(self, spec: NoiseSpec, into: Tensor) -> Tensor:
        """:meth:`draw` into a tensor that is there."""
        return into.copy_(self.draw(spec))

    def _dimension(self, part: NoiseSpec, whole: NoiseSpec) -> int | None:
        """Where the rows are; None where the noise is the same for all of them."""
        if part == whole:
            return None
        if part.kind == whole.kind and part.dtype == whole.dtype and len(part.shape) == len(whole.shape):
            differing = [d for d, sizes in enumerate(zip(part.shape, whole.shape, strict=True)) if sizes[0] != sizes[1]]
            if len(differing) == 1:
                (d,) = differing
                if part.shape[d] % self._rows == 0 and whole.shape[d] == self._count * part.shape[d]:
                    return d
        raise InputError(
            f"ranks: the program draws noise of shape {part.shape} for {self._rows} rows and {whole.shape} for"
            f" {self._count * self._rows}, which cannot be shared out; train it on one device"
        )
