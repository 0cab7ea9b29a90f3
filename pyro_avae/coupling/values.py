"""What a correlation may be."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["checked_rho"]


def checked_rho(rho: float | Sequence[float] | Tensor, latent_dim: int, *, name: str = "rho") -> Tensor:
    """``rho`` as a tensor (float64 unless it came as one), or an error naming argument, value and what is allowed."""
    allowed = f"a number in (-1, 1) or one per latent dimension, shape ({latent_dim},)"
    if isinstance(rho, Tensor) and rho.requires_grad:
        raise InputError(f"{name}: expected {allowed}, got a tensor that requires grad; to learn it, pass 'learned'")
    try:
        given = torch.as_tensor(rho)
        # A copy: changing the user's tensor later does not change the coupling.
        values = rho.detach().clone() if isinstance(rho, Tensor) else torch.tensor(rho, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected {allowed}, got {rho!r}") from None
    if given.dtype is torch.bool or given.is_complex():
        raise InputError(f"{name}: expected {allowed}, got {given.tolist()} of dtype {given.dtype}")
    if values.shape not in ((), (latent_dim,)):
        raise InputError(f"{name}: expected {allowed}, got shape {tuple(values.shape)}: {_abbreviated(values)}")
    if not bool((values.abs() < 1).all()):
        raise InputError(f"{name}: expected {allowed}, got {values.tolist()}")
    return values


def _abbreviated(values: Tensor) -> str:
    """The values in one line, the first few of many."""
    flat = values.flatten().tolist()
    return str(flat) if len(flat) <= 8 else f"[{', '.join(map(str, flat[:8]))}, ...]"
