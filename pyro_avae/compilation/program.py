"""An ELBO's loss and gradients as a function of tensors alone."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from pyro.infer.elbo import ELBOModule
from torch import Tensor, nn

from pyro_avae.compilation.stock_elbo import tensors_only
from pyro_avae.errors import InputError
from pyro_avae.parameters import trainable

__all__ = ["Outputs", "Program", "sum_of"]


class Outputs(NamedTuple):
    """What a program computes.

    Attributes:
        loss: a 0-d tensor.
        terms: the terms of the bound, 0-d, in the order of :attr:`Program.names`, then the entropies that it leaves
            out in the order of :attr:`Program.entropy_names`.
        gradients: one a parameter, None where the loss does not depend on it.
        buffers: the buffers as the pass left them.
        gradient_sum: the sum of all gradients' elements, 0-d: not finite where one of them is not.
    """

    loss: Tensor
    terms: list[Tensor]
    gradients: list[Tensor | None]
    buffers: list[Tensor]
    gradient_sum: Tensor


class Program:
    """The loss of an ``elbo(model, guide)`` and its gradients, with parameters and buffers as arguments.

    Args:
        module: what ``elbo(model, guide)`` returns.
        prepare: makes the ELBO's arguments, a tuple or the one, of the program's; by default they are the same.
        mean: divide loss and terms by the number of rows of the ELBO's first argument.
        autocast: dtype of ``torch.autocast``, None for none.

    Raises:
        InputError: an ELBO without ``differentiable_loss``.

    Attributes:
        parameters: the trainable ones, each once.
        buffers: all of them, each once.
        names: of the terms, known after the first run; empty where the ELBO has no ``evaluate``.
        entropy_names: of the entropies, likewise.
    """

    def __init__(
        self,
        module: ELBOModule,
        *,
        prepare: Callable[..., Any] | None = None,
        mean: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        if not hasattr(module.elbo, "differentiable_loss"):
            raise InputError(
                f"elbo: {type(module.elbo).__name__} has no differentiable_loss, without which there is nothing to"
                " trace; use AVAE_ELBO, Trace_ELBO or TraceMeanField_ELBO, or train with pyro.infer.SVI"
            )
        self.module, self.prepare, self.mean, self.autocast = module, prepare, mean, autocast
        self.parameters: dict[str, nn.Parameter] = trainable(module.model, module.guide)
        self.buffers = list({id(buffer): buffer for buffer in module.buffers()}.values())
        self.names: list[str] = []
        self.entropy_names: list[str] = []

    def loss(self, *args: Any) -> tuple[Tensor, list[Tensor]]:
        """The loss, with its graph, and terms and entropies without, in one run of model and guide."""
        args = self.prepared(*args)
        with self.autocasting(), _caught_terms(self.module.elbo) as caught:
            loss = self.module(*args)
        named, entropies = (caught[-1].sites, caught[-1].entropy) if caught else ({}, {})
        share = 1 / len(args[0]) if self.mean else 1.0
        self.names, self.entropy_names = list(named), list(entropies)
        return share * loss, [share * value.detach() for value in (*named.values(), *entropies.values())]

    def prepared(self, *args: Any) -> tuple[Any, ...]:
        """The ELBO's arguments."""
        if self.prepare is None:
            return args
        prepared = self.prepare(*args)
        return prepared if isinstance(prepared, tuple) else (prepared,)

    def __call__(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], *args: Any) -> Outputs:
        """Run it with these parameters and buffers; none of them, and nothing of the modules, is changed."""
        parameters = [parameter.detach().requires_grad_() for parameter in parameters]
        put = dict(zip(map(id, self.parameters.values()), parameters, strict=True))
        put.update(zip(map(id, self.buffers), [buffer.clone() for buffer in buffers], strict=True))
        with torch.enable_grad(), tensors_only(self.module), self._swapped(put) as slots:
            loss, terms = self.loss(*args)
            left = [holder[name] for holder, name in (slots[id(buffer)] for buffer in self.buffers)]
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        loss, left = loss.detach(), [tensor.detach() for tensor in left]
        return Outputs(loss, terms, list(gradients), left, sum_of(gradients, like=loss))

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

    def autocasting(self) -> AbstractContextManager[Any]:
        """``torch.autocast`` with the program's dtype, or nothing."""
        if self.autocast is None:
            return nullcontext()
        device = next(iter(self.parameters.values())).device
        return torch.autocast(device.type, self.autocast)


def sum_of(gradients: Iterable[Tensor | None], *, like: Tensor) -> Tensor:
    """The sum of all their elements, in the dtype of ``like``: what costs least of what is not finite if one is not.

    Example:
        >>> sum_of([torch.ones(2), None, torch.tensor([1.0, torch.inf])], like=torch.zeros(()))
        tensor(inf)
    """
    sums = [gradient.sum().to(like.dtype) for gradient in gradients if gradient is not None]
    return torch.stack(sums).sum() if sums else torch.zeros_like(like)


@contextmanager
def _caught_terms(elbo: Any) -> Iterator[list[Any]]:
    """What ``elbo.evaluate`` returns while the loss is computed, whatever the loss is made of it; empty without it."""
    caught: list[Any] = []
    if not hasattr(elbo, "evaluate"):
        yield caught
        return
    evaluate = elbo.evaluate

    def noted(*args: Any, **kwargs: Any) -> Any:
        caught.append(evaluate(*args, **kwargs))
        return caught[-1]

    with patch.object(elbo, "evaluate", noted):
        yield caught
