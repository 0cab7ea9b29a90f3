"""Convolutions that see only pixels that come before, row by row."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from pyro_avae.errors import InputError

__all__ = ["MaskedConv2d", "receptive_field"]


class MaskedConv2d(nn.Module):
    r"""A convolution whose output at a pixel sees a block of rows above it, and of its own row what lies left of it.

    ::

        . w w w .     rows above: 2
        . w w w .     width: 3, (width - 1) // 2 to the right
        . w o         left of the pixel, and the pixel itself only where ``centre``

    The image stays as large; outside of it there are zeros. With an even width the block reaches one column further to
    the left than to the right.

    Args:
        in_channels: of its input.
        out_channels: of its output.
        rows: above the pixel, at least 0.
        width: of the block, at least 1.
        centre: whether the pixel itself is seen; not by a layer that sees the image (mask A), by later ones (mask B).

    Raises:
        InputError: a size out of range, or a mask that lets nothing through.

    Example:
        >>> MaskedConv2d(1, 4, rows=2, width=3, centre=False)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 4, 8, 8])
    """

    mask: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, rows: int, width: int, centre: bool) -> None:
        super().__init__()
        if rows < 0 or width < 1:
            raise InputError(f"rows, width: expected at least 0 rows and 1 column, got {rows} and {width}")
        self.rows, self.left, self.right = rows, width // 2, (width - 1) // 2
        mask = torch.ones(rows + 1, width)
        mask[rows, self.left + centre :] = 0
        if not mask.any():
            raise InputError("rows, width: a mask of 0 rows and 1 column without the centre lets nothing through")
        self.register_buffer("mask", mask, persistent=False)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, rows + 1, width))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # As torch does it, for the weights that are seen.
        bound = (in_channels * float(mask.sum())) ** -0.5
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` to ``(B, out_channels, H, W)``."""
        padded = nn.functional.pad(x, (self.left, self.right, self.rows, 0))
        return conv2d(padded, self.weight * self.mask.to(self.weight.dtype), self.bias)


def receptive_field(kernels: Sequence[tuple[int, int]]) -> tuple[int, int, int]:
    """How far a stack sees: rows above, columns to the left, and columns to the right in the rows above.

    Args:
        kernels: ``(width, rows)`` of each layer.

    Example:
        >>> receptive_field([(3, 1)] * 6)
        (6, 6, 6)
    """
    return (
        sum(rows for _, rows in kernels),
        sum(width // 2 for width, _ in kernels),
        sum((width - 1) // 2 for width, _ in kernels),
    )
