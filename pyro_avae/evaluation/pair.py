"""What evaluation asks of a model and a guide: the few methods it calls, and nothing about how they are made."""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

__all__ = ["Guide", "Model", "device_of"]


class _Module(Protocol):
    """The part of :class:`torch.nn.Module` that evaluation uses."""

    def modules(self) -> Iterator[nn.Module]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


class Model(_Module, Protocol):
    """A target p(x|z) p(z): z of shape ``(..., L)``, x of shape ``(..., *event)``."""

    @property
    def latent_dim(self) -> int: ...

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), ``(..., *event)``."""
        ...

    def observe(self, z: Tensor) -> Any:
        """The Pyro distribution p(x|z), batch shape ``(...)``, event shape ``event``."""
        ...


class Guide(_Module, Protocol):
    """An approximation q(z|x); where it has ``proposal(x)`` too, importance sampling draws from that.

    See :class:`~pyro_avae.proposal.Proposal`.
    """

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, *event)`` to the mean ``(B, L)`` and the scale, ``(B, L)`` or a Cholesky factor ``(B, L, L)``."""
        ...

    def posterior(self, x: Tensor) -> Any:
        """The Pyro distribution q(z|x), batch shape ``(B,)``, event shape ``(L,)``."""
        ...


def device_of(*modules: _Module) -> torch.device:
    """The device of the first parameter of ``modules``; the CPU where there is none."""
    for module in modules:
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")
