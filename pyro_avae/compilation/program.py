"""An ELBO's loss and gradients as a function of tensors alone."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_avae.compilation.stock_elbo import tensors_only
from pyro_avae.errors import InputError
from pyro_avae.parameters import trainable

__all__ = ["Outputs", "Program"]


class Outputs(NamedTuple):
    """What a program computes.

    Attributes:
        loss: a 0-d tensor.
        terms: the terms of the bound and further numbers for logs, 0-d, in the order of :attr:`Program.names`.
        gradients: one a parameter, None where the loss does not depend on it.
        buffers: the buffers as the pass left them.
    """

    loss: Tensor
    terms: list[Tensor]
    gradients: list[Tensor | None]
    buffers: list[Tensor]


class Program:
    """The loss of an ``elbo(model, guide)`` and its gradients, with parameters and buffers as arguments.

    Args:
        module: what ``elbo(model, guide)`` returns.
        mean: divide loss and terms by the number of rows of the first argument.
        autocast: dtype of ``torch.autocast``, None for none.

    Raises:
        InputError: an ELBO without ``differentiable_loss``.

    Attributes:
        parameters: the trainable ones, each once.
        buffers: all of them, each once.
        names: of the terms, known after the first run; empty where the ELBO has no ``evaluate``.
    """

    def __init__(self, module: ELBOModule, *, mean: bool = False, autocast: torch.dtype | None = None) -> None:
        if not hasattr(module.elbo, "differentiable_loss"):
            raise InputError(
                f"elbo: {type(module.elbo).__name__} has no differentiable_loss, without which there is nothing to"
                " trace; use AVAE_ELBO, Trace_ELBO or TraceMeanField_ELBO, or train with pyro.infer.SVI"
            )
        self.module, self.mean, self.autocast = module, mean, autocast
        self.parameters: dict[str, nn.Parameter] = trainable(module.model, module.guide)
        self.buffers = list({id(buffer): buffer for buffer in module.buffers()}.values())
        self.names: list[str] = []

    def loss(self, *args: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, with its graph, and what there is to log, in one run of model and guide."""
        elbo, model, guide = self.module.elbo, self.module.model, self.module.guide
        with self._autocast():
            if hasattr(elbo, "evaluate"):
                found = elbo.evaluate(model, guide, *args)
                loss = found.loss
                named = {**found.sites, **{f"{name}_entropy": value for name, value in found.entropy.items()}}
            else:
                loss, named = self.module(*args), {}
        share = 1 / len(args[0]) if self.mean else 1.0
        self.names = list(named)
        return share * loss, {name: share * value.detach() for name, value in named.items()}

    def __call__(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], *args: Any) -> Outputs:
        """Run it with these parameters and buffers; none of them, and nothing of the modules, is changed."""
        parameters = [parameter.detach().requires_grad_() for parameter in parameters]
        put = dict(zip(map(id, self.parameters.values()), parameters, strict=True))
        put.update(zip(map(id, self.buffers), [buffer.clone() for buffer in buffers], strict=True))
        with torch.enable_grad(), tensors_only(self.module), self._swapped(put) as slots:
            loss, named = self.loss(*args)
            left = [holder[name] for holder, name in (slots[id(buffer)] for buffer in self.buffers)]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        return Outputs(loss.detach(), list(named.values()), list(gradients), [tensor.detach() for tensor in left])

    @contextmanager
    def _swapped(self, put: dict[int, Tensor]) -> Iterator[dict[int, tuple[dict[str, Any], str]]]:
        """Other tensors in place of parameters and buffers; yields where each stands, by the id of the original."""
        slots: dict[int, tuple[dict[str, Any], str]] = {}
        with ExitStack() as stack:
            for part in self.module.modules():
                holders: tuple[dict[str, Any], ...] = (part._parameters, part._buffers)
                for holder in holders:
                    for name, tensor in list(holder.items()):
                        if tensor is not None and id(tensor) in put:
                            slots.setdefault(id(tensor), (holder, name))
                            stack.callback(holder.__setitem__, name, tensor)
                            holder[name] = put[id(tensor)]
            yield slots

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        device = next(iter(self.parameters.values())).device
        return torch.autocast(device.type, self.autocast)
