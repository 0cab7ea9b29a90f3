"""The parameters of modules: each once, and shown to ``pyro.infer.SVI`` and to nobody else."""

from itertools import count
from weakref import WeakKeyDictionary

import pyro
import torch
from pyro.params.param_store import ParamStoreDict
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import nn

__all__ = ["register_parameters", "trainable"]

_serial = count()
_names: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def trainable(*modules: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters of the modules, each once, also where two modules share one.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> list(trainable(layer, nn.Sequential(layer, nn.Linear(3, 1))))
        ['0.weight', '0.bias', '1.1.weight', '1.1.bias']
    """
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for number, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                found.setdefault(id(parameter), (f"{number}.{name}", parameter))
    return dict(found.values())


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
