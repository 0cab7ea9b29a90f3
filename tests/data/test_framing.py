"""The square of a face: one for every size of the image."""

import numpy as np
from PIL import Image

from pyro_avae.data.framing import frame_face


def test_native_and_half_size_show_the_same_square(celeba):
    native = celeba.face(1, celeba.NATIVE)
    half = native.resize(celeba.HALF, Image.Resampling.BOX)
    whole, halved = frame_face(native).astype(int), frame_face(half).astype(int)
    # A filter of so few taps is off centre by 0.16 native pixels at most at half size, 0.04 at native size (computed
    # from its weights), and a wave is as steep as 9 levels a pixel downwards, 7 sideways: 3.2 levels. Rounding, twice
    # in each resize and once in the halving, adds 2.5. The edge in the middle is left out: halving smears it.
    middle = np.zeros(64, dtype=bool)
    middle[30:34] = True
    assert np.abs(whole - halved)[:, :, ~middle].max() < 6
    # What the tolerance sees: a square that starts a native pixel further down differs by more.
    shifted = frame_face(native.transform(celeba.NATIVE, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 1))).astype(int)
    assert np.abs(whole - shifted)[1][:, ~middle].max() > 6


def test_the_square_is_the_central_one():
    pixels = np.full((218, 178, 3), 255, dtype=np.uint8)
    # The filter of the outermost pixels reaches two pixels beyond the square.
    pixels[33:185, 13:165] = 7
    assert (frame_face(Image.fromarray(pixels)) == 7).all()
    pixels[35, 15:163] = pixels[182, 15:163] = pixels[35:183, 15] = pixels[35:183, 162] = 255
    frame = frame_face(Image.fromarray(pixels))
    assert min(edge.min() for edge in (frame[:, 0], frame[:, -1], frame[:, :, 0], frame[:, :, -1])) > 7 + 50
    assert (frame[:, 2:-2, 2:-2] == 7).all()
