"""Strided convolutions: the stages that halve a map and those that double it."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

from pyro_avae.errors import InputError
from pyro_avae.networks import start_weights
from pyro_avae.normalization import Normalization

__all__ = ["checked_image_shape", "doubling_stages", "halving_stages", "stage_channels", "stage_sides"]

#: Kernel, stride and padding of a stage. A kernel that the stride divides reaches every pixel equally often; with
#: this padding a side n becomes n // 2, and no pixel is lost.
_KERNEL, _STRIDE, _PADDING = 4, 2, 1

_MOST_CHANNELS = 256
_GAIN = math.sqrt(2)


def checked_image_shape(event_shape: Sequence[int]) -> tuple[int, int, int]:
    """``(C, H, W)`` with sides that are multiples of 4, so that the two stages next to the pixels halve exactly.

    Raises:
        InputError: another shape.

    Example:
        >>> checked_image_shape((3, 28, 30))
        Traceback (most recent call last):
        pyro_avae.errors.InputError: event_shape: expected (channels, height, width), ... got (3, 28, 30)...
    """
    shape = tuple(event_shape)
    if len(shape) != 3 or shape[0] < 1 or any(side < 4 or side % 4 for side in shape[1:]):
        raise InputError(
            f"event_shape: expected (channels, height, width), height and width multiples of 4, got {shape};"
            " pad or crop the images, or take an MLP"
        )
    return shape[0], shape[1], shape[2]


def stage_channels(event_shape: Sequence[int], *, first: int) -> tuple[int, ...]:
    """Channels after each stage: ``first``, doubled by every stage up to 256, until a side is at most 5.

    Example:
        >>> stage_channels((3, 28, 28), first=32), stage_channels((3, 64, 64), first=32)
        ((32, 64, 128), (32, 64, 128, 256))
    """
    _, height, width = checked_image_shape(event_shape)
    stages = max(1, (min(height, width) // 3).bit_length() - 1)
    return tuple(min(first << stage, _MOST_CHANNELS) for stage in range(stages))


def stage_sides(event_shape: Sequence[int], stages: int) -> list[tuple[int, int]]:
    """``(height, width)`` of the image and after each stage.

    Raises:
        InputError: no stage, or so many that no pixel is left.

    Example:
        >>> stage_sides((3, 28, 28), 3)
        [(28, 28), (14, 14), (7, 7), (3, 3)]
    """
    _, height, width = checked_image_shape(event_shape)
    most = min(height, width).bit_length() - 1
    if not 1 <= stages <= most:
        raise InputError(
            f"channels: expected 1 to {most} stages, as each halves the {height}x{width} pixels, got {stages}"
        )
    return [(height >> stage, width >> stage) for stage in range(stages + 1)]


def halving_stages(channels: Sequence[int], normalization: Normalization) -> nn.Sequential:
    """Convolution, normalisation and ReLU, once for every step from one number of channels to the next.

    Weights as :func:`~pyro_avae.networks.start_weights` draws them with the gain of He et al., biases zero.

    Example:
        >>> from pyro_avae.normalization import as_normalization
        >>> halving_stages([3, 8, 16], as_normalization("none"))(torch.zeros(1, 3, 28, 28)).shape
        torch.Size([1, 16, 7, 7])
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(channels):
        bias = not normalization.absorbs_bias
        conv = nn.Conv2d(before, after, _KERNEL, _STRIDE, _PADDING, bias=bias)
        _start(conv, fan_in=before * _KERNEL**2, gain=_GAIN)
        layers += [conv, *normalization.maps(after), nn.ReLU()]
    return nn.Sequential(*layers)


def doubling_stages(
    channels: Sequence[int], sides: Sequence[tuple[int, int]], normalization: Normalization
) -> nn.Sequential:
    """Normalisation, ReLU and transposed convolution, once for every step; the mirror image of :func:`halving_stages`.

    The last convolution has a bias and, as no ReLU follows it, gain 1.

    Args:
        channels: of the map that comes in, after each stage, and of the image.
        sides: ``(height, width)`` of the same; a side n becomes 2n, or 2n + 1 where that is asked for.
        normalization: see :mod:`pyro_avae.normalization`.

    Example:
        >>> from pyro_avae.normalization import as_normalization
        >>> stages = doubling_stages([8, 4, 1], [(3, 3), (7, 7), (14, 14)], as_normalization("none"))
        >>> stages(torch.zeros(1, 8, 3, 3)).shape
        torch.Size([1, 1, 14, 14])
    """
    layers: list[nn.Module] = []
    steps = list(zip(itertools.pairwise(channels), itertools.pairwise(sides), strict=True))
    for stage, ((before, after), (small, large)) in enumerate(steps, 1):
        last = stage == len(steps)
        odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
        bias = last or not normalization.absorbs_bias
        conv = nn.ConvTranspose2d(before, after, _KERNEL, _STRIDE, _PADDING, output_padding=odd, bias=bias)
        # Of the kernel's pixels, every stride-th in each direction reaches a given output.
        _start(conv, fan_in=before * (_KERNEL // _STRIDE) ** 2, gain=1.0 if last else _GAIN)
        layers += [*normalization.maps(before), nn.ReLU(), conv]
    return nn.Sequential(*layers)


def _start(conv: nn.Conv2d | nn.ConvTranspose2d, *, fan_in: float, gain: float) -> None:
    start_weights(conv.weight, fan_in=fan_in, gain=gain)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
