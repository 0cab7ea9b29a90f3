"""Passes that leave the running statistics of normalisation layers alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pyro_avae.errors import InputError, shown_value

__all__ = ["Statistics", "statistics_layers", "untouched_statistics"]

Statistics = Literal["batch", "running"]


def statistics_layers(module: nn.Module) -> list[_NormBase]:
    """The layers of ``module``, itself included, that keep running statistics.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.LayerNorm(3))
        >>> statistics_layers(net) == [net[1]]
        True
    """
    return [part for part in module.modules() if isinstance(part, _NormBase) and part.track_running_stats]


@contextmanager
def untouched_statistics(modules: Iterable[nn.Module], *, use: Statistics) -> Iterator[None]:
    r"""Inside it, no layer of ``modules`` changes its running statistics.

    A layer in training mode normalises :math:`(a - m)/\sqrt{v + \epsilon}` with

    - ``use="batch"``: mean m and variance v of the batch that passes, as in training mode;
    - ``use="running"``: its running mean and variance, as in eval mode.

    Layers in eval mode stay so. Nested, the outer one counts. Other layers (dropout say) keep their mode.

    Args:
        modules: networks, or to look for the layers only once, what :func:`statistics_layers` found in them.
        use: ``"batch"`` or ``"running"``.

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
        raise InputError(f"statistics: expected one of batch, running, got {shown_value(use)}")
    layers = [layer for module in modules for layer in statistics_layers(module) if layer.training]
    buffers = [dict(layer._buffers) for layer in layers]
    try:
        for layer in layers:
            if use == "running":
                layer.training = False
            else:
                layer.track_running_stats = False
                # Instance normalisation writes to the buffers that it has, whatever the flag says.
                layer._buffers.update(dict.fromkeys(layer._buffers))
        yield
    finally:
        for layer, kept in zip(layers, buffers, strict=True):
            layer.training = layer.track_running_stats = True
            layer._buffers.update(kept)
