"""The terms of the bound on held-out images."""

import torch
from torch import Tensor

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.evaluation.pair import Guide, Model

__all__ = ["bound_terms"]


def bound_terms(model: Model, guide: Guide, x: Tensor) -> dict[str, float]:
    """Each term of the bound and their sum ``total`` (minus the loss): means per image, in nats.

    One sample of the guide per image, from torch's global generator.

    Example:
        >>> from pyro_avae.models import VAE
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(torch.nn.Linear(2, 3), latent_dim=2, obs_variance=0.5)
        >>> sorted(bound_terms(model, AmortizedGuide(LinearEncoder(3, 2)), torch.zeros(4, 3)))
        ['total', 'x', 'z']
    """
    with torch.no_grad():
        terms: dict[str, Tensor] = AVAE_ELBO().terms(model, guide, x)  # type: ignore[arg-type]
    means = {site: float(term) / len(x) for site, term in terms.items()}
    return {**means, "total": sum(means.values())}
