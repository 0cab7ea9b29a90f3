"""Normalisation layers, by the names that networks take."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from pyro_avae.errors import InputError, shown_value

__all__ = ["NORMALIZATIONS", "Normalization", "as_normalization"]


@dataclass(frozen=True)
class Normalization:
    """What stands between a linear or convolutional layer and its ReLU.

    Attributes:
        maps: number of channels C to the layers for maps ``(B, C, H, W)``.
        vectors: width C to the layers for vectors ``(B, C)``.
        absorbs_bias: it takes away whatever constant is added to a channel, so the layer before it has no bias.

    Example:
        >>> instance = Normalization(maps=lambda c: [nn.InstanceNorm2d(c)], vectors=lambda c: [])
        >>> [type(layer).__name__ for layer in instance.maps(3)]
        ['InstanceNorm2d']
    """

    maps: Callable[[int], list[nn.Module]]
    vectors: Callable[[int], list[nn.Module]]
    absorbs_bias: bool = False


def _group_norm(channels: int) -> nn.Module:
    """Up to 8 groups of at least 4 channels; a group of one value in a vector would always be zero."""
    return nn.GroupNorm(max(1, math.gcd(32, channels) // 4), channels)


#: ``batch`` normalises each channel over the batch and keeps running statistics; ``layer`` each sample over all its
#: channels and pixels; ``group`` each sample over up to 8 groups of channels. Only ``batch`` couples samples, and in
#: training mode only.
NORMALIZATIONS: Mapping[str, Normalization] = {
    "none": Normalization(maps=lambda c: [], vectors=lambda c: []),
    "batch": Normalization(
        maps=lambda c: [nn.BatchNorm2d(c)], vectors=lambda c: [nn.BatchNorm1d(c)], absorbs_bias=True
    ),
    "layer": Normalization(maps=lambda c: [nn.GroupNorm(1, c)], vectors=lambda c: [nn.LayerNorm(c)]),
    "group": Normalization(maps=lambda c: [_group_norm(c)], vectors=lambda c: [_group_norm(c)]),
}


def as_normalization(value: str | Normalization | Any) -> Normalization:
    """The normalisation of that name; one that is made already is given back.

    Raises:
        InputError: a name that is not in :data:`NORMALIZATIONS`, or something else.

    Example:
        >>> [type(layer).__name__ for layer in as_normalization("layer").vectors(5)]
        ['LayerNorm']
    """
    if isinstance(value, Normalization):
        return value
    if not isinstance(value, str) or value not in NORMALIZATIONS:
        names = ", ".join(NORMALIZATIONS)
        raise InputError(f"normalization: expected one of {names}, or a Normalization, got {shown_value(value)}")
    return NORMALIZATIONS[value]
