"""The distance between two Gaussian encodings."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["squared_wasserstein"]


def squared_wasserstein(p: TorchDistribution, q: TorchDistribution) -> Tensor:
    r"""The squared 2-Wasserstein distance of two Gaussians.

    .. math:: W_2^2 = \|\mu_p - \mu_q\|^2 + \|\sigma_p - \sigma_q\|^2

    for diagonal covariances; with Cholesky factors :math:`L` the second part is
    :math:`\|L_p\|_F^2 + \|L_q\|_F^2 - 2\,\|L_p^\top L_q\|_*`, the last a nuclear norm.

    Args:
        p: an ``Independent`` Normal or a ``MultivariateNormal`` with event shape ``(L,)``.
        q: the same family.

    Returns:
        One distance for each element of the batch shape.

    Raises:
        InputError: another family, or two families.

    Example:
        >>> import pyro.distributions as dist
        >>> p, q = (dist.Normal(torch.full((1, 2), m), torch.ones(1, 2)).to_event(1) for m in (0.0, 3.0))
        >>> squared_wasserstein(p, q)
        tensor([18.])

    Source: appendix B of Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020.
    """
    a, b = (d.base_dist if isinstance(d, torch.distributions.Independent) else d for d in (p, q))
    if isinstance(a, torch.distributions.Normal) and isinstance(b, torch.distributions.Normal):
        diagonal: Tensor = ((a.loc - b.loc).square() + (a.scale - b.scale).square()).sum(-1)
        return diagonal
    if isinstance(a, torch.distributions.MultivariateNormal) and isinstance(b, torch.distributions.MultivariateNormal):
        factors = a.scale_tril, b.scale_tril
        sizes = sum(factor.square().sum((-2, -1)) for factor in factors)
        overlap = torch.linalg.matrix_norm(factors[0].mT @ factors[1], ord="nuc")
        full: Tensor = (a.loc - b.loc).square().sum(-1) + sizes - 2 * overlap
        return full
    raise InputError(
        f"squared_wasserstein: expected two Normal or two MultivariateNormal, got {type(a).__name__} and"
        f" {type(b).__name__}"
    )
