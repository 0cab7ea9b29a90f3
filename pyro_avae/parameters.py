"""How a plain ``nn.Module`` shows its parameters to ``pyro.infer.SVI``, and to nobody else."""

from itertools import count
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
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
        if parameter.requires_grad:
            _put(store, f"{name}.{key}", parameter)
            pyro.param(f"{name}.{key}", parameter)


def _put(store: ParamStoreDict, name: str, parameter: nn.Parameter) -> None:
    """Make the parameter itself, and no copy of it, what the store holds under the name."""
    if name in store:
        stored = store[name]
        if stored is parameter:
            return
        with torch.no_grad():
            parameter.copy_(stored)
        del store[name]
    store[name] = parameter
    stored = store[name]
    if stored is not parameter:
        # The store makes tensors contiguous (weights in channels_last are not): the optimiser would train the copy.
        del store._param_to_name[stored]
        store._params[name] = parameter
        store._param_to_name[parameter] = name
