"""What is known of generated images: their factors of variation, and neighbourhoods of them."""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["FEWEST_VALUES", "Generator", "neighbours"]

#: Factors with fewer values are classes, which have no neighbourhood: they are held within one.
FEWEST_VALUES = 10


class Generator(Protocol):
    """Images made from integer factors: :data:`~pyro_avae.data.THREE_DOTS`, or one's own."""

    @property
    def num_values(self) -> Sequence[int]:
        """How many values each factor has: factor j is in 0 to ``num_values[j]`` - 1."""
        ...

    def render(self, factors: Tensor) -> Tensor:
        """Factors int64 ``(N, F)`` to images ``(N, *event)``, on the factors' device."""
        ...


def neighbours(
    num_values: Sequence[int], rho: float, count: int, *, fewest: int = FEWEST_VALUES, generator: torch.Generator
) -> Tensor:
    r"""Factors around one centroid, which is drawn uniformly.

    Factor j of V values is uniform on the integers c - r to c + r that are values, c the centroid's and
    :math:`r = \lfloor\rho V\rfloor`; one with V < ``fewest`` is c. At rho = 1 the other factors are uniform on all
    values, whatever the centroid. One state of the generator gives the same centroid, and the same place within each
    interval, for every rho.

    Args:
        num_values: V of each factor.
        rho: at least 0.
        count: how many.
        fewest: see there.
        generator: of the CPU.

    Returns:
        int64 ``(count, F)``, on the CPU.

    Raises:
        InputError: no factor, or one without a value; a rho below 0.

    Example:
        >>> near = neighbours([100, 5], 0.02, 1000, generator=torch.Generator().manual_seed(0))
        >>> (near.amax(0) - near.amin(0)).tolist()
        [4, 0]
    """
    values = torch.tensor(list(num_values), dtype=torch.int64)
    if len(values) == 0 or int(values.min()) < 1:
        raise InputError(f"num_values: expected a number of at least 1 for each factor, got {list(num_values)}")
    if not 0 <= rho < math.inf:
        raise InputError(f"rho: expected a finite number of at least 0, got {rho}")
    draws = torch.rand(1 + count, len(values), dtype=torch.float64, generator=generator)
    centroid = (draws[0] * values).long()
    # The small amount is for products such as 0.29 * 100, which are a whole number but for rounding.
    radius = torch.where(values >= fewest, (rho * values.double() + 1e-9).floor().long(), 0)
    low, high = (centroid - radius).clamp(min=0), torch.minimum(centroid + radius, values - 1)
    return low + (draws[1:] * (high - low + 1)).long()
