"""What the latents tell of the image: mutual information under the encoder, and which of them are in use."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_avae.evaluation.features import posterior_mean
from pyro_avae.evaluation.pair import Guide

__all__ = ["ACTIVE_VARIANCE", "MutualInformation", "active_units", "mutual_information"]

#: A latent is in use where the variance of its posterior mean over images is larger (Burda et al. 2016).
ACTIVE_VARIANCE = 0.01

_CHUNK = 100


class MutualInformation(NamedTuple):
    """An estimate of the mutual information of x and z, in nats.

    Attributes:
        mean: the estimate.
        standard_error: of its Monte Carlo part.
        at_most: log N, which no estimate from N images exceeds.
    """

    mean: float
    standard_error: float
    at_most: float


def mutual_information(guide: Guide, x: Tensor) -> MutualInformation:
    r"""The mutual information of an image, drawn from ``x``, and its z ~ q(z|x).

    .. math:: \frac1N \sum_i \log q(z_i|x_i) - \log \frac1N \sum_j q(z_i|x_j), \qquad z_i \sim q(z|x_i),

    from torch's global generator: that of the N images themselves, exactly so in expectation, at most log N. Of a
    larger population it is, for that reason, an underestimate once it comes near log N.

    Args:
        guide: with ``posterior``.
        x: ``(N, *event)``.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> _ = torch.manual_seed(0)
        >>> found = mutual_information(AmortizedGuide(LinearEncoder(3, 2)), torch.randn(50, 3))
        >>> found.mean < found.at_most == math.log(50)
        True

    Source: Hoffman and Johnson, *ELBO surgery*, 2016, equation 9.
    """
    with torch.no_grad():
        posterior = guide.posterior(x)
        z = posterior.sample()
        mixture = torch.cat([posterior.log_prob(part[:, None]).logsumexp(1) for part in z.split(_CHUNK)])
        each = (posterior.log_prob(z) - mixture + math.log(len(x))).double()
    return MutualInformation(float(each.mean()), float(each.std()) / math.sqrt(len(x)), math.log(len(x)))


def active_units(guide: Guide, x: Tensor) -> int:
    """How many latents have a posterior mean whose variance over the images ``x`` is above :data:`ACTIVE_VARIANCE`.

    Not counted by the KL: the AVAE gives a latent that it does not use the variance 1 - rho^2, whose KL is not 0.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> guide = AmortizedGuide(LinearEncoder(3, 2))
        >>> _ = torch.nn.init.zeros_(guide.encoder.linear.weight[:1].data)
        >>> active_units(guide, 10 * torch.randn(200, 3)) <= 2
        True

    Source: Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, ICLR 2016, section 5.2.
    """
    with torch.no_grad():
        return int((posterior_mean(guide, x).double().var(0) > ACTIVE_VARIANCE).sum())
