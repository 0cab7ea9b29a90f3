"""The square of a face that models see, the same whatever size the aligned image was stored in."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pyro_avae.errors import InputError

__all__ = ["FRAMING", "SIZE", "frame_face"]

FRAMING = 1
"""Version of :func:`frame_face`: decoded images that another version made are decoded again."""

SIZE = 64

_WIDTH, _HEIGHT = 178, 218
_CROP = 148
_LEFT, _TOP = (_WIDTH - _CROP) // 2, (_HEIGHT - _CROP) // 2
# The narrowest image whose square is not enlarged.
_NARROWEST = -(-SIZE * _WIDTH // _CROP)


def frame_face(image: Image.Image) -> NDArray[np.uint8]:
    """The central square of an aligned CelebA image, as uint8 (3, 64, 64), red, green, blue.

    At the native 178x218 the square is 148x148 pixels, from column 15 and row 35. In an image that was scaled by s it
    is that square times s: at 89x109 74x74 pixels, from column 7.5 and row 17.5. It is read at these fractions, so the
    two sizes show the same part of the face, and resized by Pillow's bilinear filter, which widens with the reduction
    (antialiasing) and, unlike the bicubic one, does not overshoot. It draws on up to two pixels around the square.

    Raises:
        InputError: an image of other proportions than 178x218 (by more than a pixel), or narrower than 77 pixels,
            whose square would have to be enlarged.

    Example:
        >>> native = Image.linear_gradient("L").resize((178, 218)).convert("RGB")
        >>> half = native.resize((89, 109))
        >>> pixels = frame_face(native)
        >>> pixels.shape, int(np.abs(pixels.astype(int) - frame_face(half)).max()) <= 1
        ((3, 64, 64), True)
    """
    width, height = image.size
    if width < _NARROWEST or abs(height * _WIDTH - width * _HEIGHT) > _WIDTH:
        raise InputError(
            f"expected an aligned image of {_WIDTH}x{_HEIGHT} (width x height), or one of these proportions and at "
            f"least {_NARROWEST} wide, got {width}x{height}"
        )
    scale = width / _WIDTH
    box = (_LEFT * scale, _TOP * scale, (_LEFT + _CROP) * scale, (_TOP + _CROP) * scale)
    square = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    return np.asarray(square, dtype=np.uint8).transpose(2, 0, 1)
