"""Images in files that nobody vouches for, opened by Pillow."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from pyro_avae.errors import shown_value

__all__ = ["FORMATS", "WIDE_MODES", "reason", "wary"]

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""The formats that are read, whatever a file is called. Pillow knows others, and has Ghostscript run some of them."""

WIDE_MODES = frozenset({"F", "I", "I;16", "I;16B", "I;16L", "I;16N"})
"""Pillow's modes of more than eight bits a channel, which a conversion would cut off."""


@contextmanager
def wary() -> Iterator[None]:
    """Refuse an image of more pixels than memory is to be had for, and let Pillow warn of nothing else.

    An image is read or it is not; what is odd about one that is read would stand on stderr beside the one line of an
    error. The filters of warnings are the whole process's: enter this once, around threads that read and not in them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def reason(error: Exception) -> str:
    """What a broken file ran Pillow into, in one line that may be shown."""
    text = " ".join(str(error).split())
    text = text if text.isprintable() else shown_value(text)
    return f"{type(error).__name__}: {text}"
