"""Kullback-Leibler divergences in closed form, where there is one."""

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

__all__ = ["analytic_kl"]


def analytic_kl(q: TorchDistribution, p: TorchDistribution) -> Tensor | None:
    r"""Return :math:`\mathrm{KL}(q\,\|\,p)`, of the distributions' batch shape, or ``None`` where Pyro knows no form.

    Pyro knows most pairs. What it lacks is a full covariance against a diagonal one, the cases of a PPCA posterior
    against N(0, I) and of a diagonal encoder under a matrix coupling: there the diagonal one is written as a
    multivariate normal. Nothing is registered with torch.

    Example:
        >>> import pyro.distributions as dist
        >>> q = dist.MultivariateNormal(torch.ones(2), scale_tril=torch.eye(2))
        >>> analytic_kl(q, dist.Normal(torch.zeros(2), torch.ones(2)).to_event(1))
        tensor(1.)
    """
    if isinstance(q, dist.MultivariateNormal):
        p = _as_multivariate(p)
    elif isinstance(p, dist.MultivariateNormal):
        q = _as_multivariate(q)
    try:
        kl: Tensor = kl_divergence(q, p)
    except NotImplementedError:
        return None
    return kl


def _as_multivariate(p: TorchDistribution) -> TorchDistribution:
    if not isinstance(p, torch.distributions.Independent) or p.reinterpreted_batch_ndims != 1:
        return p
    base = p.base_dist
    if not isinstance(base, torch.distributions.Normal):
        return p
    return dist.MultivariateNormal(base.loc, scale_tril=torch.diag_embed(base.scale))
