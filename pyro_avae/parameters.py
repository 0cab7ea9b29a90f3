"""How a plain ``nn.Module`` shows its parameters to ``pyro.infer.SVI``, and to nobody else."""

from itertools import count
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

__all__ = ["register_parameters"]

_serial = count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def register_parameters(module: nn.Module) -> None:
    """Register the module's trainable parameters with Pyro, if Pyro is collecting parameters.

    ``SVI.step`` finds what it optimises through Pyro's global parameter store. The store knows a parameter by name
    alone, so that two modules with equal names silently share their parameters. Here every module instance gets a
    name of its own, copies included, and outside ``SVI`` the store is not touched at all: an ``ELBOModule`` with a
    torch optimiser leaves nothing behind.

    A parameter that was loaded into the store under the module's name is copied into the module.

    Args:
        module: a model or guide; called first thing in its ``forward``.
    """
    if not any(isinstance(handler, TraceMessenger) and handler.param_only for handler in _PYRO_STACK):
        return
    name = _names.get(module)
    if name is None:
        name = _names[module] = f"{type(module).__name__}_{next(_serial)}"
    store = pyro.get_param_store()
    for key, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        stored = pyro.param(f"{name}.{key}", parameter)
        if stored is not parameter:
            with torch.no_grad():
                parameter.copy_(stored)
            store[f"{name}.{key}"] = parameter
            pyro.param(f"{name}.{key}", parameter)
