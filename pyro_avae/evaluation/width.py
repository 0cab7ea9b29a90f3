"""How much memory a likelihood takes: its parameters for each value of x."""

from typing import Any

from torch import Tensor
from torch.distributions import Independent

__all__ = ["parameters_per_value"]


def parameters_per_value(distribution: Any) -> int:
    """How many values the largest parameter of p(x|z) has for each value of x, at least 1.

    Example:
        >>> import torch
        >>> from pyro_avae.models import bernoulli, categorical
        >>> [parameters_per_value(one) for one in (bernoulli(torch.zeros(4, 4)), categorical(torch.zeros(256, 4, 4)))]
        [1, 256]
    """
    values = max(1, distribution.batch_shape.numel() * distribution.event_shape.numel())
    base = distribution
    while isinstance(base, Independent):
        base = base.base_dist
    tensors = [held for held in vars(base).values() if isinstance(held, Tensor)]
    return max([1, *(-(-tensor.numel() // values) for tensor in tensors)])
