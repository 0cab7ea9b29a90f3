"""Building blocks that encoders and decoders share."""

import itertools
import math
from collections.abc import Sequence

from torch import nn

__all__ = ["mlp"]


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    """A stack of linear layers with ReLU between them, none after the last.

    Weights start as a normal truncated at two standard deviations of ``1/sqrt(fan_in)``, biases at zero: the default of
    the authors' JAX code (haiku ``Linear``). torch's own default starts a deep ReLU stack far smaller.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.

    Example:
        >>> [tuple(layer.weight.shape) for layer in mlp([4, 3, 2]) if hasattr(layer, "weight")]
        [(3, 4), (2, 3)]
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        linear = nn.Linear(fan_in, fan_out)
        scale = 1 / math.sqrt(fan_in)
        nn.init.trunc_normal_(linear.weight, std=scale, a=-2 * scale, b=2 * scale)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
