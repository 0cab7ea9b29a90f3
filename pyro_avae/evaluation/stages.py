"""Points of training, and how much the gradients at each of them count."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

__all__ = ["Stage", "tracin_weights"]


@dataclass(frozen=True)
class Stage:
    """A point of training; :func:`~pyro_avae.runs.kept.stages` makes them of a run's kept checkpoints.

    Attributes:
        step: how many steps were done.
        weight: of its gradients, see :func:`tracin_weights`.
        load: puts its parameters into (model, guide), in place.
    """

    step: int
    weight: float
    load: Callable[[nn.Module, nn.Module], None]


def tracin_weights(steps: Sequence[int], lrs: Sequence[float], *, num_train: int) -> list[float]:
    r"""The weights :math:`w_c = \eta_c (t_c - t_{c-1}) / n` of stages after steps :math:`t_1 < t_2 < \dots`, t_0 = 0.

    A step of SGD on the mean loss of B images moves the parameters by :math:`\eta/B` times each image's gradient, and
    of the steps since the last stage each image was in :math:`B (t_c - t_{c-1})/n`: B cancels. Every step of an
    interval is judged by the parameters at its end. (The authors' code has a further factor B, which changes no rank.)

    Args:
        steps: increasing.
        lrs: the learning rate at each.
        num_train: n, images that training drew from.

    Example:
        >>> tracin_weights([100, 300], [0.1, 0.1], num_train=50)
        [0.2, 0.4]
    """
    before = [0, *steps]
    return [lr * (step - then) / num_train for step, then, lr in zip(steps, before, lrs, strict=False)]
