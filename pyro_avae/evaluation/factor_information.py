"""Mutual information of codes and factors, and what is made of it: the gap and the modularity."""

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["discretized", "entropies", "factor_information", "information_gap", "modularity"]


def discretized(codes: Tensor, bins: int) -> Tensor:
    """Each column in ``bins`` intervals of equal length from its least to its largest value, numbered from 0.

    A constant column is in one interval.

    Args:
        codes: ``(N, C)``, finite.
        bins: at least 1.

    Returns:
        int64 ``(N, C)``.

    Example:
        >>> discretized(torch.tensor([[0.0], [0.9], [1.0], [5.0], [4.0]]), 5).flatten().tolist()
        [0, 0, 1, 4, 4]
    """
    codes = codes.double()
    low, high = codes.amin(0), codes.amax(0)
    edges = low + (high - low) * torch.arange(1, bins, device=codes.device, dtype=torch.float64)[:, None] / bins
    reached = codes[:, None] >= edges
    return (reached & (high > low)).sum(1)


def factor_information(codes: Tensor, factors: Tensor) -> Tensor:
    r"""The mutual information of each code and each factor, of their joint frequencies, in nats.

    .. math:: \sum_{a,b} \frac{n_{ab}}{N} \log \frac{N n_{ab}}{n_a n_b}

    Args:
        codes: integers from 0, ``(N, C)``.
        factors: integers from 0, ``(N, F)``.

    Returns:
        float64 ``(C, F)``; exactly 0 where one is constant.

    Raises:
        InputError: none at all, or not as many of one as of the other.

    Example:
        >>> values = torch.arange(8)[:, None]
        >>> factor_information(values // 4, values)  # one of two halves: log 2
        tensor([[0.6931]], dtype=torch.float64)
    """
    if codes.dim() != 2 or factors.dim() != 2 or len(codes) != len(factors) or len(codes) == 0:
        raise InputError(
            f"codes, factors: expected shapes (N, C) and (N, F), N >= 1, got {tuple(codes.shape)} and"
            f" {tuple(factors.shape)}"
        )
    columns = [_with_code(codes, factor) for factor in factors.T]
    return torch.stack(columns, dim=1)


def _with_code(codes: Tensor, factor: Tensor) -> Tensor:
    """One factor's column of :func:`factor_information`."""
    bins, values = int(codes.max()) + 1, int(factor.max()) + 1
    joint = torch.zeros(codes.shape[1], bins * values, dtype=torch.float64, device=codes.device)
    places = (codes * values + factor[:, None]).T
    joint = joint.scatter_add(1, places, torch.ones_like(places, dtype=torch.float64)).unflatten(1, (bins, values))
    total = len(codes)
    # Counts are exact, and so is the ratio 1 where nothing is known: log 1 is 0 without rounding.
    ratio = total * joint / (joint.sum(2, keepdim=True) * joint.sum(1, keepdim=True))
    return torch.xlogy(joint, ratio.nan_to_num(nan=1.0)).sum((1, 2)) / total


def entropies(factors: Tensor) -> Tensor:
    """The entropy of each factor's frequencies in nats, float64 ``(F,)``."""
    return torch.cat([_with_code(factor[:, None], factor) for factor in factors.T])


def information_gap(information: Tensor, entropy: Tensor) -> float:
    r"""MIG: the mean over factors of :math:`(I_{(1)} - I_{(2)}) / H`, the two largest informations over codes.

    1 where each factor is known from one code and no other. Factors that do not vary are left out. With one code,
    :math:`I_{(2)}` is 0.

    Args:
        information: as :func:`factor_information`, ``(C, F)``.
        entropy: of the factors, ``(F,)``.

    Returns:
        NaN where no factor varies.

    Example:
        >>> information_gap(torch.tensor([[1.0, 0.0], [0.25, 0.5]]), torch.tensor([1.0, 1.0]))
        0.625

    Source: Chen et al., *Isolating Sources of Disentanglement in Variational Autoencoders*, NeurIPS 2018.
    """
    varies = entropy > 0
    known = information[:, varies]
    largest = torch.cat([known, known.new_zeros(1, known.shape[1])]).topk(2, dim=0).values
    return float(((largest[0] - largest[1]) / entropy[varies]).mean())


def modularity(information: Tensor) -> float:
    r"""The mean over codes of :math:`1 - \frac{\sum_j I_j^2 - \max_j I_j^2}{(F - 1) \max_j I_j^2}`.

    1 where each code knows of one factor; 0 for a code that knows of none, or as much of each.

    Args:
        information: as :func:`factor_information`, ``(C, F)``.

    Raises:
        InputError: fewer than two factors.

    Example:
        >>> modularity(torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, 0.0]]))
        0.5833333333333334

    Source: Ridgeway and Mozer, *Learning Deep Disentangled Embeddings with the F-Statistic Loss*, NeurIPS 2018.
    """
    if information.shape[1] < 2:
        raise InputError(f"factors: expected two or more, as modularity compares them, got {information.shape[1]}")
    squares = information.double().square()
    largest = squares.amax(1)
    others = (squares.sum(1) - largest) / (largest * (squares.shape[1] - 1))
    return float(torch.where(largest > 0, 1 - others, 0.0).mean())
