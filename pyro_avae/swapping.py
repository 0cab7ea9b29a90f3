"""Running modules with other tensors in place of their own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

__all__ = ["swapped_tensors"]


@contextmanager
def swapped_tensors(
    modules: Iterable[nn.Module], swap: Callable[[Tensor], Tensor], *, buffers: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Put ``swap(tensor)`` in place of every floating parameter of the modules meanwhile.

    ``torch.func.functional_call`` does the same for modules that form a tree. Where one module is reachable under two
    names (a layer used twice), it leaves the swapped tensors behind, silently: training then stops. Here each module
    is visited once, and a tensor that two modules share is swapped for one tensor.

    Args:
        modules: what to visit, submodules not implied; one that comes twice counts once.
        swap: e.g. ``Tensor.detach`` or ``Tensor.double``.
        buffers: swap buffers too.

    Yields:
        What was put in, keyed by the id of the original.

    Example:
        >>> linear = nn.Linear(1, 1)
        >>> with swapped_tensors([linear], Tensor.detach):
        ...     linear.weight.requires_grad
        False
        >>> linear.weight.requires_grad
        True
    """
    unique = {id(module): module for module in modules}.values()
    slots: list[Any] = [module._parameters for module in unique] + [m._buffers for m in unique if buffers]
    before = [dict(tensors) for tensors in slots]
    put: dict[int, Tensor] = {}
    try:
        for tensors in slots:
            for name, tensor in tensors.items():
                if tensor is not None and tensor.is_floating_point():
                    if id(tensor) not in put:
                        put[id(tensor)] = swap(tensor)
                    tensors[name] = put[id(tensor)]
        yield put
    finally:
        for tensors, original in zip(slots, before, strict=True):
            tensors.update(original)
