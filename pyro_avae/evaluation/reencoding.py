"""Does the encoder recognise what the decoder makes of its own encoding?"""

import torch
from torch import Tensor

from pyro_avae.evaluation.features import posterior_mean
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.plain import plain_number
from pyro_avae.evaluation.reconstruction import reconstruct

__all__ = ["reencoding_error"]


def reencoding_error(model: Model, guide: Guide, x: Tensor, *, batch_size: int = 500) -> float | None:
    r"""How far a reconstruction's encoding lies from the image's, relative to the spread of encodings:

    .. math:: \sqrt{\sum_i \lVert \mu(g(\mu(x_i))) - \mu(x_i) \rVert^2 \,/\, \sum_i \lVert \mu(x_i) - \bar\mu \rVert^2},

    μ the posterior mean, g the mean of p(x|z). 0: the pair autoencodes; 1: as far off as the mean of all encodings.

    Args:
        model: p(x|z), with ``decode``.
        guide: q(z|x), with ``encode``.
        x: at least two images ``(B, *event)``.
        batch_size: images at a time.

    Returns:
        The ratio; None where it is not finite, as for an encoder that says the same of every image.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> model = VAE(torch.nn.Linear(1, 2, bias=False), latent_dim=1)
        >>> guide = AmortizedGuide(LinearEncoder(2, 1))
        >>> _ = torch.nn.init.ones_(model.observation.decoder.weight)
        >>> _ = torch.nn.init.constant_(guide.encoder.linear.weight, 0.25)
        >>> _ = torch.nn.init.zeros_(guide.encoder.linear.bias)
        >>> round(reencoding_error(model, guide, torch.tensor([[1.0, 1.0], [-1.0, -1.0]])), 4)
        0.5

    Source: the property that gives the Autoencoding VAE its name, Cemgil et al. 2020 (arXiv 2012.03715), Figure 1.
    """
    with torch.no_grad(), frozen(model, guide):
        first, second = [], []
        for batch in x.to(device_of(guide)).split(batch_size):
            first.append(posterior_mean(guide, batch).double())
            second.append(posterior_mean(guide, reconstruct(model, guide, batch)).double())
        mean, again = torch.cat(first), torch.cat(second)
        moved = (again - mean).square().sum()
        spread = (mean - mean.mean(0)).square().sum()
        return plain_number((moved / spread).sqrt())
