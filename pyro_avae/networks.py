"""Building blocks that encoders and decoders share."""

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

from pyro_avae.normalization import Normalization, as_normalization

__all__ = ["mlp", "start_weights"]


def start_weights(weight: Tensor, *, fan_in: float, gain: float = 1.0) -> None:
    r"""Draw weights in place: normal, standard deviation ``gain / sqrt(fan_in)``, cut at two of them.

    Cutting leaves 0.774 of the variance. ``gain=1`` is the default of the authors' JAX code (haiku); the
    :math:`\sqrt 2` of He et al. 2015 (arXiv 1502.01852) makes up for a ReLU.

    Args:
        weight: of any shape.
        fan_in: how many inputs reach an output.
        gain: 1 or :math:`\sqrt 2`.

    Example:
        >>> weight = torch.empty(10, 100)
        >>> start_weights(weight, fan_in=100)
        >>> bool(weight.abs().max() <= 0.2)
        True
    """
    scale = gain / math.sqrt(fan_in)
    nn.init.trunc_normal_(weight, std=scale, a=-2 * scale, b=2 * scale)


def mlp(sizes: Sequence[int], *, normalization: str | Normalization = "none") -> nn.Sequential:
    """A stack of linear layers with normalisation and ReLU between them, neither after the last.

    Weights start as a normal truncated at two standard deviations of ``1/sqrt(fan_in)``, biases at zero: the default of
    the authors' JAX code (haiku ``Linear``). torch's own default starts a deep ReLU stack far smaller.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        normalization: of the hidden layers, before the ReLU; see :mod:`pyro_avae.normalization`.

    Raises:
        InputError: a ``normalization`` that does not exist.

    Example:
        >>> [tuple(layer.weight.shape) for layer in mlp([4, 3, 2]) if hasattr(layer, "weight")]
        [(3, 4), (2, 3)]
    """
    normalized = as_normalization(normalization)
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes[:-1]):
        linear = _linear(fan_in, fan_out, bias=not normalized.absorbs_bias)
        layers += [linear, *normalized.vectors(fan_out), nn.ReLU()]
    return nn.Sequential(*layers, _linear(sizes[-2], sizes[-1]))


def _linear(fan_in: int, fan_out: int, *, bias: bool = True) -> nn.Linear:
    linear = nn.Linear(fan_in, fan_out, bias=bias)
    start_weights(linear.weight, fan_in=fan_in)
    if bias:
        nn.init.zeros_(linear.bias)
    return linear
