"""One step of SVI, and what it tells of itself without making the device wait."""

import copy
import math
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_avae.compilation import SVIProgram
from pyro_avae.compilation.cuda_graph import CudaRecorder, can_be_recorded
from pyro_avae.errors import InputError

__all__ = ["NonFiniteError", "SVIStep"]


class NonFiniteError(FloatingPointError):
    """The loss, or a parameter, became NaN or infinite."""


class SVIStep:
    """Calling it on a batch does one step: loss, gradients, optimiser.

    The loss of a Pyro ELBO is summed over the batch; it is divided by the number of images in the program, once. The
    terms of the bound come with the loss, where the ELBO has ``evaluate``: nothing is computed twice, and they sum to
    minus the loss. A step whose loss is not finite is noted on the device, its terms with it; :meth:`row` finds it.

    Args:
        model: a Pyro model that is a module.
        guide: the same.
        elbo: any Pyro ELBO. It is copied, not changed.
        optimizer: of the parameters of both.
        device: where the loss is.
        kl_warmup: steps over which the weight of the KL terms rises from 0 to the ELBO's own.
        seed: of the noise; that of a step depends on it and on the step's number alone.
        compiled: whether the step is traced and compiled; see :func:`~pyro_avae.compilation.compile_step`.

    Raises:
        InputError: a warm-up of an ELBO whose KL terms cannot be weighted.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        elbo: ELBO,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        kl_warmup: int = 0,
        seed: int = 0,
        compiled: bool = False,
    ) -> None:
        # Any: terms are reported where an ELBO has them, and Pyro's own have none.
        self._elbo: Any = copy.copy(elbo)
        self._kl_warmup = kl_warmup
        if kl_warmup:
            if not hasattr(self._elbo, "kl_weight"):
                raise InputError(
                    f"kl_warmup: expected an ELBO with kl_weight, such as AVAE_ELBO, got {type(elbo).__name__}"
                )
            self._final_kl_weight = float(self._elbo.kl_weight)
            # A tensor, changed in place: no step has to be built anew, and the device is not waited for.
            self._elbo.kl_weight = torch.zeros((), device=device)
        self._program = SVIProgram(self._elbo(model, guide), optimizer, seed=seed, mean=True, compiled=compiled)
        self._ok = torch.ones((), dtype=torch.bool, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int64, device=device)
        self._names: list[str] = []
        self._values = torch.zeros(0, device=device)

    def compile(self, x: Tensor) -> float:
        """Trace and compile for batches like ``x``; returns the seconds that it took.

        Raises:
            InputError: as :func:`~pyro_avae.compilation.compile_step`.
        """
        if self._kl_warmup:
            self._elbo.kl_weight.fill_(self._final_kl_weight)  # with 0 the check would not see the KL terms
        if hasattr(self._elbo, "with_entropy"):
            self._elbo.with_entropy = True  # a trace of its own for logged steps would cost as much again
        self._program.try_out(x)
        self._program.trace(x)
        if can_be_recorded(self._program.optimizer, self._ok.device):
            self._program.record_with(CudaRecorder())
        return self._program.seconds

    def __call__(self, x: Tensor, *, number: int = 1, with_entropy: bool = False) -> None:
        """One step on the batch ``x``, the ``number``-th of training.

        ``with_entropy`` has the next row show the entropies that the bound leaves out. Those change during training
        where the likelihood is learned or has no location-scale form.
        """
        if self._kl_warmup:
            self._elbo.kl_weight.fill_(self.kl_weight(number))
        if hasattr(self._elbo, "with_entropy") and not self._program.compiled:
            self._elbo.with_entropy = with_entropy
        self._program.number = number - 1
        self._note(self._program(x))

    def kl_weight(self, number: int) -> float:
        """The weight of the KL terms in the ``number``-th step, 1, 2, ... of a training with a warm-up."""
        return self._final_kl_weight * min(1.0, number / self._kl_warmup)

    def row(self, *, before: int) -> dict[str, float]:
        """The loss and the terms of the last step, means per image in nats. Here the device is waited for.

        Args:
            before: how many steps were done before this object's first.

        Raises:
            NonFiniteError: the loss was not finite at some step; its number and the term are named.
        """
        good, good_steps, *values = torch.cat(
            [self._ok[None].double(), self._good_steps[None].double(), self._values.double()]
        ).tolist()
        row = dict(zip(self._names, values, strict=True))
        if not good:
            # A term rather than the loss, which is not finite as soon as a term is not.
            candidates = [*list(row.items())[1:], *row.items()]
            name, value = next(((n, v) for n, v in candidates if not math.isfinite(v)), ("loss", math.nan))
            terms = ", ".join(f"{n} {v:.4g}" for n, v in row.items())
            raise NonFiniteError(
                f"step {before + int(good_steps)}: the term {name!r} of the loss is {value} ({terms}); try a smaller lr"
            )
        return {**row, **{f"{name}_entropy": float(value) for name, value in self._program.entropy.items()}}

    def _note(self, loss: Tensor) -> None:
        """Keep this step's loss and terms, unless an earlier step's were not finite: then keep those."""
        named = {"loss": loss, **self._program.terms}
        values = torch.stack([value.to(loss.dtype) for value in named.values()])
        finite = values.isfinite().all()
        if list(named) == self._names:
            values = torch.where(self._ok, values, self._values)
        self._names, self._values = list(named), values
        self._good_steps += self._ok
        self._ok = self._ok & finite
