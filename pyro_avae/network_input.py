"""What a network is called with, looked at without its numbers, for which a device would have to be waited for."""

from typing import Any

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["check_input"]


def check_input(name: str, value: object, event_shape: tuple[int, ...], *, like: Any) -> None:
    """Say in one line what torch would say of matrices that cannot be multiplied.

    Args:
        name: what the network is called with.
        value: that, which is to be ``(B, *event_shape)``.
        event_shape: what the network was made for.
        like: one of its parameters, of which torch's types say no more than that a module holds it; under
            ``torch.autocast`` any type of floats goes with it.

    Raises:
        InputError: no dense tensor, one of another shape, or of another type or elsewhere than the parameters.

    Example:
        >>> check_input("x", torch.zeros(5, 2), (3,), like=torch.zeros(1))
        Traceback (most recent call last):
        pyro_avae.errors.InputError: x: expected torch.float32 of shape (B, 3) on cpu, got torch.float32 of...
    """
    expected = f"{name}: expected {like.dtype} of shape (B, {', '.join(map(str, event_shape))}) on {like.device}"
    if not isinstance(value, Tensor):
        raise InputError(f"{expected}, got {type(value).__name__}")
    is_right = value.dtype == like.dtype or (value.is_floating_point() and torch.is_autocast_enabled(value.device.type))
    is_there = value.layout == torch.strided and value.device == like.device
    if not is_right or not is_there or value.dim() != len(event_shape) + 1 or value.shape[1:] != event_shape:
        sparse = "" if value.layout == torch.strided else f", {value.layout}"
        raise InputError(f"{expected}, got {value.dtype} of shape {tuple(value.shape)} on {value.device}{sparse}")
