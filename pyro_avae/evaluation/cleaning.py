"""How well a score finds what does not belong into a training set."""

from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["cleaning_auc"]


def cleaning_auc(scores: Tensor, planted: Tensor) -> float:
    r"""The mean over k of the share of planted images among the k of the highest scores.

    .. math:: \frac1n \sum_{k \le n} \frac{\#\{\text{planted in the top } k\}}{n_\text{planted}}

    A perfect ranking has :math:`1 - (n_\text{planted} - 1)/(2n)`, a random one 1/2. It is not the area under a ROC
    curve.

    Args:
        scores: ``(n,)``.
        planted: bool, ``(n,)``, some of them true.

    Raises:
        InputError: none is true, or the shapes differ.

    Example:
        >>> import torch
        >>> cleaning_auc(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([True, False, True, False]))
        0.875

    Source: Kong and Chaudhuri 2021, data cleaning.
    """
    if scores.shape != planted.shape or scores.dim() != 1 or not bool(planted.any()):
        raise InputError(
            f"planted: expected as many as scores {tuple(scores.shape)}, some of them true, got {tuple(planted.shape)}"
        )
    found = planted[scores.argsort(descending=True, stable=True)].double().cumsum(0)
    return float((found / planted.sum()).mean())
