"""A random projection that costs one addition a number, and keeps inner products on average."""

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["CountSketch"]


class CountSketch:
    r"""Vectors of P numbers as vectors of K: each number is added, with a random sign, to a random place.

    .. math:: (S g)_k = \sum_{i:\, h(i) = k} s_i g_i, \qquad \mathbb E\, \langle S a, S b\rangle = \langle a, b\rangle,
        \qquad \mathrm{Var} = \frac1K \Bigl(\|a\|^2 \|b\|^2 + \langle a, b\rangle^2 - 2 \sum_i a_i^2 b_i^2\Bigr)

    with h uniform on K places and s uniform signs. The standard error of an inner product is therefore at most
    :math:`\|a\|\|b\|\sqrt{2/K}`. No P x K matrix is there: it takes two vectors of P numbers.

    Args:
        size: P.
        dim: K.
        seed: of h and s; the same on every device.
        device: where the vectors are.

    Raises:
        InputError: K below 1.

    Example:
        >>> sketch = CountSketch(1000, 64, seed=0, device=torch.device("cpu"))
        >>> sketch(torch.ones(2, 1000)).shape
        torch.Size([2, 64])

    Source: Charikar, Chen and Farach-Colton, *Finding frequent items in data streams*, 2004; Weinberger et al.,
        *Feature hashing for large scale multitask learning*, ICML 2009.
    """

    def __init__(self, size: int, dim: int, *, seed: int, device: torch.device) -> None:
        if dim < 1:
            raise InputError(f"projection: expected at least 1 dimension, got {dim}")
        generator = torch.Generator().manual_seed(seed)
        self.dim = dim
        self._places = torch.randint(dim, (size,), generator=generator).to(device)
        self._signs = (2 * torch.randint(2, (size,), generator=generator, dtype=torch.int8) - 1).to(device)

    def __call__(self, vectors: Tensor) -> Tensor:
        """``(B, P)`` to ``(B, K)``."""
        sketches = vectors.new_zeros(len(vectors), self.dim)
        return sketches.index_add_(1, self._places, vectors * self._signs)
