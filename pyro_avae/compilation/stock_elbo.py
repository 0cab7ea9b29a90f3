"""Running Pyro programs so that nothing but tensors comes out, and nothing is left behind in Pyro."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pyro
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_avae.errors import InputError

__all__ = ["tensors_only"]


@contextmanager
def tensors_only(module: nn.Module) -> Iterator[None]:
    """Have Pyro's own ELBOs keep their loss a tensor, and PyroModules read the parameters that they hold themselves.

    ``Trace_ELBO`` and its like return ``loss + (surrogate - surrogate.item())``, which has the value of the one and
    the gradient of the other; ``.item()`` waits for the device and cannot be traced. ``detach`` does the same.

    Args:
        module: the ``elbo(model, guide)`` that is run.

    Raises:
        InputError: the program has a ``pyro.param`` statement, whose tensor is in Pyro's global store.
    """
    with ExitStack() as stack:
        stack.enter_context(pyro.settings.context(module_local_params=True))
        stack.enter_context(_NoStore())
        for part in module.modules():
            context = getattr(part, "_pyro_context", None)
            if context is not None and not hasattr(context, "param_state"):
                context.param_state = {"params": {}, "constraints": {}}  # as where it was made with the setting on
        for name, source in list(sys.modules.items()):
            if name.startswith("pyro.infer.") and source is not None:
                if hasattr(source, "torch_item"):
                    stack.enter_context(patch.object(source, "torch_item", _detached))
                if hasattr(source, "warn_if_nan"):
                    stack.enter_context(patch.object(source, "warn_if_nan", _unchecked))
        yield


class _NoStore(Messenger):
    """Refuses statements that read the global parameter store; those of modules carry their value with them."""

    def _pyro_param(self, msg: Any) -> None:
        if getattr(msg["fn"], "__self__", None) is pyro.get_param_store():
            raise InputError(
                f"site {msg['name']!r}: pyro.param keeps its tensor in Pyro's global store, which a compiled step does"
                " not look into; make it a PyroParam or nn.Parameter of a module, or train with pyro.infer.SVI"
            )


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _unchecked(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value
