r"""A bound on log p(x), image by image, of any Gaussian q(z) that is not tied to an encoder.

:math:`z_s = \mu + \sigma \epsilon_s`, with one noise :math:`\epsilon` for every image: an image's bound then depends on
the image alone, and the bounds of two q differ by far less noise than either has.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from pyro_avae.divergence import analytic_kl
from pyro_avae.evaluation.pair import Model

__all__ = ["BOUNDS", "Bound", "elbo", "gaussian", "importance", "sigma_points"]

#: ``(model, x (B, *event), loc, scale, noise)`` to ``(B,)`` nats; the scale is diagonal or a Cholesky factor, the noise
#: comes in blocks ``(s, L)``, each of which is decoded at once.
Bound = Callable[[Model, Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]


def elbo(model: Model, x: Tensor, loc: Tensor, scale: Tensor, noise: Sequence[Tensor]) -> Tensor:
    r""":math:`\frac1S \sum_s \log p(x|z_s) - \mathrm{KL}(q\,\|\,p(z))`, ``(B,)`` in nats.

    The divergence is the closed form where there is one, else an average over the same samples.

    Example:
        >>> from pyro_avae.models import PPCA
        >>> model = PPCA(torch.ones(2, 1), obs_variance=1.0)
        >>> loc, scale = torch.zeros(1, 1), torch.ones(1, 1)
        >>> elbo(model, torch.zeros(1, 2), loc, scale, [sigma_points(1)]).item()   # -log 2 pi - E z^2
        -2.837877...
    """
    q = gaussian(loc, scale)
    samples = [_at(loc, scale, block) for block in noise]
    kl = analytic_kl(q, _prior(model, loc))
    if kl is None:
        kl = torch.cat([q.log_prob(z) - _prior(model, z).log_prob(z) for z in samples]).mean(0)
    return torch.cat([model.observe(z).log_prob(x) for z in samples]).mean(0) - kl


def importance(model: Model, x: Tensor, loc: Tensor, scale: Tensor, noise: Sequence[Tensor]) -> Tensor:
    r""":math:`\log \frac1S \sum_s p(x, z_s) / q(z_s)`, ``(B,)`` in nats.

    It tends to log p(x) as S grows, whatever q is: a regret made of it is one of this S, and vanishes with 1/S.
    """
    q = gaussian(loc, scale)
    weights = []
    for block in noise:
        z = _at(loc, scale, block)
        weights.append(model.observe(z).log_prob(x) + _prior(model, z).log_prob(z) - q.log_prob(z))
    stacked = torch.cat(weights)
    return stacked.logsumexp(0) - math.log(len(stacked))


BOUNDS: Mapping[str, Bound] = {"elbo": elbo, "importance": importance}


def sigma_points(latent_dim: int, *, dtype: torch.dtype | None = None) -> Tensor:
    r"""The 2L points :math:`\pm\sqrt L e_i`, whose average is that of N(0, I) for polynomials up to degree 3.

    With them :func:`elbo` is exact where log p(x|z) is quadratic in z: a Gaussian likelihood and a linear decoder.

    Example:
        >>> sigma_points(1).tolist()
        [[1.0], [-1.0]]

    Source: Arasaratnam and Haykin, *Cubature Kalman Filters*, IEEE TAC 2009, equation 28.
    """
    points = math.sqrt(latent_dim) * torch.eye(latent_dim, dtype=dtype)
    return torch.cat([points, -points])


def gaussian(loc: Tensor, scale: Tensor) -> Any:
    """N(loc, scale²) over ``(B, L)``, or with a Cholesky factor ``(B, L, L)``."""
    if scale.dim() > loc.dim():
        return dist.MultivariateNormal(loc, scale_tril=scale)
    return dist.Normal(loc, scale).to_event(1)


def _at(loc: Tensor, scale: Tensor, noise: Tensor) -> Tensor:
    """``(s, B, L)``."""
    return loc + (torch.einsum("bij,sj->sbi", scale, noise) if scale.dim() > loc.dim() else scale * noise[:, None])


def _prior(model: Any, z: Tensor) -> Any:
    return model.prior(z) if hasattr(model, "prior") else dist.Normal(torch.zeros_like(z), 1.0).to_event(1)
