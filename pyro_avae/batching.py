"""Any number of batch dimensions in front of a network that knows one."""

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_map

__all__ = ["apply_batched"]


def apply_batched(network: Callable[[Tensor], Any], x: Tensor, *, event_dim: int) -> Any:
    """Call ``network`` on ``x`` with its batch dimensions flattened to one, and unflatten what it returns.

    A vectorised ELBO puts particles in front of the batch; a user's network is written for ``(B, *event)``.

    Args:
        network: maps ``(B, *event)`` to a tensor ``(B, ...)`` or to a tuple, list or dict of such tensors.
        x: ``(*batch, *event)``.
        event_dim: how many dimensions on the right belong to ``event``.

    Returns:
        The network's output with ``*batch`` in place of ``B`` in every tensor.

    Example:
        >>> import torch
        >>> apply_batched(torch.nn.Linear(3, 2), torch.zeros(5, 4, 3), event_dim=1).shape
        torch.Size([5, 4, 2])
    """
    split = x.dim() - event_dim
    batch, event = x.shape[:split], x.shape[split:]
    if len(batch) == 1:
        return network(x)
    out = network(x.reshape(-1, *event))
    return tree_map(lambda t: t.reshape(batch + t.shape[1:]), out)
