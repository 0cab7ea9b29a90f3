"""Random changes of images that leave what they show: drawn for each image, on its device, within a step."""

import math
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from pyro_avae.errors import InputError

__all__ = ["RandomAffine", "Transformation"]


class Transformation(Protocol):
    """A random map of images; its random numbers come from torch's global generator."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        ...


class RandomAffine:
    """A rotation, a translation and a scaling about the centre, drawn for each image.

    torchvision's ``RandomAffine`` draws one for a whole batch, and looks at it as a number, which a traced step cannot.

    Args:
        degrees: the angle is uniform on [-degrees, degrees].
        translate: the shift in each direction is uniform on [-translate, translate], as a part of the side.
        scale: ``(low, high)``, the factor is uniform between them.
        interpolation: ``"bilinear"``, or ``"nearest"``, which makes no new pixel values (for binary images). What comes
            from outside the image is 0.

    Raises:
        InputError: options out of range, or something that is no batch of images.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> x = torch.rand(3, 1, 28, 28)
        >>> RandomAffine()(x).shape, torch.allclose(RandomAffine(degrees=0, translate=0, scale=(1, 1))(x), x, atol=1e-5)
        (torch.Size([3, 1, 28, 28]), True)

    Source: the ranges are those of sinhasam/CRVAE ("simple"; "large" are 30 degrees, 0.1 and 0.75 to 1.25).
    """

    def __init__(
        self,
        *,
        degrees: float = 15.0,
        translate: float = 0.05,
        scale: tuple[float, float] = (0.9, 1.1),
        interpolation: Literal["bilinear", "nearest"] = "bilinear",
    ) -> None:
        if not 0 <= degrees <= 180:
            raise InputError(f"degrees: expected a number in [0, 180], got {degrees!r}")
        if not 0 <= translate < 1:
            raise InputError(f"translate: expected a number in [0, 1), got {translate!r}")
        if not 0 < scale[0] <= scale[1] < math.inf:
            raise InputError(f"scale: expected 0 < low <= high, got {scale!r}")
        if interpolation not in ("bilinear", "nearest"):
            raise InputError(f"interpolation: expected bilinear or nearest, got {interpolation!r}")
        self.degrees, self.translate, self.scale, self.interpolation = degrees, translate, scale, interpolation

    def __call__(self, x: Tensor, /) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        if x.dim() != 4 or not x.is_floating_point():
            raise InputError(f"x: expected a batch of images (B, C, H, W) of floats, got {x.dtype} {tuple(x.shape)}")
        height, width = x.shape[-2:]
        u = torch.rand(4, len(x), dtype=x.dtype, device=x.device)
        angle = math.radians(self.degrees) * (2 * u[0] - 1)
        factor = self.scale[0] + (self.scale[1] - self.scale[0]) * u[1]
        # The grid's unit is half a side. Where an output pixel comes from is the inverse of where it goes.
        shift = 2 * self.translate * (2 * u[2:] - 1)
        cos, sin = angle.cos() / factor, angle.sin() / factor
        ratio = height / width  # rotations are of pixels, which the grid's unit stretches
        rows = [
            torch.stack([cos, ratio * sin, -(cos * shift[0] + ratio * sin * shift[1])], -1),
            torch.stack([-sin / ratio, cos, sin / ratio * shift[0] - cos * shift[1]], -1),
        ]
        grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, mode=self.interpolation, padding_mode="zeros", align_corners=False)
