"""Any number of batch dimensions in front of a network that knows one."""

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer.util import is_validation_enabled
from torch import Tensor
from torch.utils._pytree import tree_map

from pyro_avae.errors import InputError

__all__ = ["apply_batched", "batch_size"]


def apply_batched(network: Callable[[Tensor], Any], x: Tensor, *, event_dim: int) -> Any:
    """Call ``network`` on ``x`` with its batch dimensions flattened to one, and unflatten what it returns.

    A vectorised ELBO puts particles in front of the batch; a user's network is written for ``(B, *event)``.

    Args:
        network: maps ``(B, *event)`` to a tensor ``(B, ...)`` or to a tuple, list or dict of such tensors.
        x: ``(*batch, *event)``.
        event_dim: how many dimensions on the right belong to ``event``.

    Raises:
        InputError: no dense tensor, or one of fewer dimensions than an event has.

    Returns:
        The network's output with ``*batch`` in place of ``B`` in every tensor.

    Example:
        >>> import torch
        >>> apply_batched(torch.nn.Linear(3, 2), torch.zeros(5, 4, 3), event_dim=1).shape
        torch.Size([5, 4, 2])
    """
    if not isinstance(x, Tensor) or x.layout != torch.strided or x.dim() < event_dim:
        got = f"{x.layout} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"expected a dense tensor (*batch, *event) with {event_dim} dimensions of an event, got {got}")
    split = x.dim() - event_dim
    batch, event = x.shape[:split], x.shape[split:]
    if len(batch) == 1:
        return network(x)
    out = network(x.reshape(-1, *event))
    return tree_map(lambda t: t.reshape(batch + t.shape[1:]), out)


def batch_size(x: Tensor) -> int:
    """How many images a batch has, which is what a program's plate is of.

    Raises:
        InputError: no tensor, or one of no images; while Pyro validates, numbers that are not finite.

    Example:
        >>> import torch
        >>> batch_size(torch.zeros(5, 1, 4, 4))
        5
    """
    if not isinstance(x, Tensor) or x.dim() == 0 or len(x) == 0:
        got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x: expected a tensor (B, *event) with B >= 1, got {got}")
    # It costs a look at the numbers.
    if is_validation_enabled() and x.layout == torch.strided and not x.is_meta and not bool(x.isfinite().all()):
        raise InputError("x: expected finite numbers, got some that are NaN or infinite")
    return len(x)
