"""A trained pair as evaluation sees it: in eval mode, its parameters constants, and afterwards as it was before."""

from collections.abc import Iterator
from contextlib import contextmanager

from pyro_avae.evaluation.pair import _Module

__all__ = ["frozen"]


@contextmanager
def frozen(*modules: _Module) -> Iterator[None]:
    """Put ``modules`` into eval mode with constant parameters; restore both, submodule by submodule, on the way out.

    Constant parameters make an attack cheaper (no weight gradients) and keep it from leaving gradients behind: an
    attack library that calls ``backward`` adds to ``.grad`` of every parameter that requires one.

    Example:
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())
        >>> with frozen(net):
        ...     (net.training, net[0].weight.requires_grad)
        (False, False)
        >>> (net.training, net[1].training, net[0].weight.requires_grad)
        (True, False, True)
    """
    modes = {part: part.training for module in modules for part in module.modules()}
    grads = {parameter: parameter.requires_grad for module in modules for parameter in module.parameters()}
    try:
        for part in modes:
            part.training = False
        for parameter in grads:
            parameter.requires_grad_(False)
        yield
    finally:
        for part, training in modes.items():
            part.training = training
        for parameter, requires_grad in grads.items():
            parameter.requires_grad_(requires_grad)
