"""Numbers as JSON can hold them."""

import math

from torch import Tensor

__all__ = ["plain_number"]


def plain_number(value: float | Tensor) -> float | None:
    """A Python float, or None for what is not finite.

    Example:
        >>> plain_number(2), plain_number(float("nan"))
        (2.0, None)
    """
    number = float(value)
    return number if math.isfinite(number) else None
