"""Image tensors as pictures on a page."""

import io

import numpy as np
import torch
from torch import Tensor

from pyro_avae.report.style import Picture, as_uri

__all__ = ["image_grid", "image_picture"]

_GAP = 6
#: Images are enlarged to about this width, so that a screen of high density shows pixels and no blur.
_WIDTH = 112


def image_picture(image: Tensor, alt: str) -> Picture:
    """One image ``(C, H, W)``, pixels clipped to [0, 1]."""
    return _picture(_enlarged(_pixels(image)), alt)


def image_grid(images: Tensor, alt: str) -> Picture:
    """Images ``(rows, columns, C, H, W)`` side by side, with white gaps.

    Every image owns an equal share of the picture, so that labels set in equal columns stand over their images.
    """
    rows = [np.concatenate([_framed(_enlarged(_pixels(image))) for image in row], axis=1) for row in images]
    return _picture(np.concatenate(rows, axis=0), alt)


def _pixels(image: Tensor) -> np.ndarray:
    """``(C, H, W)`` to uint8 ``(H, W, 3)``; one channel is grey, others beyond three are left out."""
    if image.shape[0] != 3:
        image = image[:1].expand(3, *image.shape[1:])
    finite = torch.nan_to_num(image.detach().float().cpu(), nan=0.5).clamp(0, 1)
    pixels: np.ndarray = (finite * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels


def _enlarged(pixels: np.ndarray) -> np.ndarray:
    """Every pixel a square of pixels."""
    factor = max(1, _WIDTH // pixels.shape[1])
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _framed(pixels: np.ndarray) -> np.ndarray:
    return np.pad(pixels, ((_GAP, _GAP), (_GAP, _GAP), (0, 0)), constant_values=255)


def _picture(pixels: np.ndarray, alt: str) -> Picture:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return Picture(as_uri(buffer.getvalue(), "image/png"), alt, pixels.shape[1], pixels.shape[0])
