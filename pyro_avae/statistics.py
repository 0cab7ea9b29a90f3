"""Passes that leave the running statistics of normalisation layers alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pyro_avae.errors import InputError

__all__ = ["Statistics", "statistics_layers", "untouched_statistics"]

Statistics = Literal["batch", "running"]


def statistics_layers(module: nn.Module) -> list[nn.Module]:
    """The layers of ``module`` that keep running statistics."""
    return [part for part in module.modules() if isinstance(part, _NormBase) and part.track_running_stats]


@contextmanager
def untouched_statistics(layers: Iterable[nn.Module], *, use: Statistics) -> Iterator[None]:
    """Inside it, no layer changes its running statistics.

    Args:
        layers: as :func:`statistics_layers` finds them.
        use: ``"batch"``: layers in training mode normalise with the statistics of what passes; ``"running"``: with
            their running statistics, as in eval mode. Layers in eval mode stay so.

    Raises:
        InputError: another ``use``.

    Example:
        >>> import torch
        >>> layer = nn.BatchNorm1d(2)
        >>> with untouched_statistics([layer], use="batch"):
        ...     _ = layer(torch.randn(8, 2) + 5)
        >>> layer.running_mean
        tensor([0., 0.])
    """
    if use not in ("batch", "running"):
        raise InputError(f"statistics: expected 'batch' or 'running', got {use!r}")
    training = [layer for layer in layers if layer.training]
    attribute = "track_running_stats" if use == "batch" else "training"
    try:
        for layer in training:
            setattr(layer, attribute, False)
        yield
    finally:
        for layer in training:
            setattr(layer, attribute, True)
