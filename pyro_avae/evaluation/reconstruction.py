"""How far the reconstruction of an image lies from it."""

import torch
from torch import Tensor

from pyro_avae.evaluation.features import posterior_mean
from pyro_avae.evaluation.pair import Guide, Model

__all__ = ["reconstruct", "squared_error"]


def reconstruct(model: Model, guide: Guide, x: Tensor) -> Tensor:
    """The mean of p(x|z) at z = the posterior mean, ``(B, *event)`` to the same shape."""
    return model.decode(posterior_mean(guide, x))


def squared_error(model: Model, guide: Guide, x: Tensor) -> Tensor:
    """Σ over pixels of (x − reconstruction)², per image ``(B,)``, pixels in [0, 1].

    The other two numbers in use follow from it: the mean per pixel is ``sse / D``, on the 0-255 scale ``255² sse / D``.

    Example:
        >>> from pyro_avae.models import VAE
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> _ = torch.manual_seed(0)
        >>> model = VAE(torch.nn.Linear(2, 3), latent_dim=2, obs_variance=0.5)
        >>> squared_error(model, AmortizedGuide(LinearEncoder(3, 2)), torch.zeros(4, 3)).shape
        torch.Size([4])
    """
    with torch.no_grad():
        return (x - reconstruct(model, guide, x)).square().flatten(1).sum(-1)
