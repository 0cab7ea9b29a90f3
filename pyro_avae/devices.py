"""Devices by name."""

import torch

from pyro_avae.errors import InputError, shown_value

__all__ = ["as_device", "default_device"]


def as_device(device: str | torch.device) -> torch.device:
    """The device, its number included, after trying it out.

    Raises:
        InputError: no such device, or none in this machine.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    try:
        place = torch.empty(0, device=device).device
        if place.type == "meta":
            raise RuntimeError("it holds no numbers")
        return place
    except (RuntimeError, TypeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"device: expected a device of this machine, such as cpu or cuda, got {shown_value(str(device))}: {reason}"
        ) from None


def default_device() -> str:
    """``"cuda"`` where there is one, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"
