"""How long, how fast and in what a training goes."""

from dataclasses import dataclass

import torch

from pyro_avae.errors import InputError
from pyro_avae.runs.settings import setting_infos

__all__ = ["PRECISIONS", "Plan"]


@dataclass(frozen=True)
class Precision:
    """What a training computes in.

    Attributes:
        autocast: what ``torch.autocast`` computes networks in; None for the parameters' dtype.
        parameters: what parameters and images are turned into; None to leave them.
    """

    autocast: torch.dtype | None = None
    parameters: torch.dtype | None = None


#: By Lightning Fabric's names.
PRECISIONS = {
    "32-true": Precision(),
    "bf16-mixed": Precision(autocast=torch.bfloat16),
    "64-true": Precision(parameters=torch.float64),
}

#: Steps that make up for the time that compiling takes, as a rule.
WORTH_COMPILING = 5000


#: Steps whose parameters are kept for good where nothing else is asked for.
KEPT = 10


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of a training; see :func:`~pyro_avae.training.fit`.

    Raises:
        InputError: one that is out of range; it is named.
    """

    steps: int
    batch_size: int
    lr: float
    kl_warmup: int
    precision: str
    compile: bool | None
    checkpoint_every: int
    keep_every: int | None
    log_every: int

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "lr", "kl_warmup"):
            setting_infos()[name].kind.check(name, getattr(self, name))
        for name in ("checkpoint_every", "log_every"):
            setting_infos()["steps"].kind.check(name, getattr(self, name))
        setting_infos()["keep_every"].kind.check("keep_every", self.keep_every)
        if self.precision not in PRECISIONS:
            raise InputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @property
    def computes_in(self) -> Precision:
        """What to compute in."""
        return PRECISIONS[self.precision]

    @property
    def to_compile(self) -> bool:
        """Whether to compile, where no earlier part of the run has decided that."""
        return self.steps >= WORTH_COMPILING if self.compile is None else self.compile

    def is_logged(self, step: int) -> bool:
        """Whether step 1, 2, ... is a logged one: the first, the last, and every ``log_every``-th."""
        return step in (1, self.steps) or step % self.log_every == 0

    def is_saved(self, step: int) -> bool:
        """Whether there is a checkpoint after it."""
        return step == self.steps or step % self.checkpoint_every == 0

    def is_kept(self, step: int) -> bool:
        """Whether the parameters after it stay: every ``keep_every``-th, or ten spread over the steps."""
        if self.keep_every is None:
            return KEPT * step // self.steps > KEPT * (step - 1) // self.steps
        return self.keep_every > 0 and step % self.keep_every == 0
