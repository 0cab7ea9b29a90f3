"""Scores beside the regret. All are larger for stranger images, and in nats unless said."""

import io
import math

import torch
from torch import Tensor

from pyro_avae.chain import iterated_reconstructions
from pyro_avae.errors import InputError
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.latent_attack import symmetric_kl
from pyro_avae.evaluation.pair import Guide, Model, device_of

__all__ = ["chain_drift", "complexity_score", "likelihood_ratio", "png_bits", "typicality", "waic"]

_MODES = {1: "L", 3: "RGB"}


def png_bits(x: Tensor) -> Tensor:
    """The length of each image as a PNG file in bits, ``(N,)``: Pillow's codec at compression level 9.

    Args:
        x: ``(N, 1 or 3, H, W)``, pixels in [0, 1], rounded to 256 levels.

    Raises:
        InputError: images of another shape.

    Example:
        >>> flat, noisy = torch.zeros(1, 1, 28, 28), torch.rand(1, 1, 28, 28)
        >>> bool(png_bits(flat) < png_bits(noisy))
        True
    """
    if x.dim() != 4 or x.shape[1] not in _MODES:
        raise InputError(f"x: expected images (N, 1 or 3, H, W) for a PNG file, got shape {tuple(x.shape)}")
    from PIL import Image

    pixels = (x.clamp(0, 1) * 255).round().byte().cpu().permute(0, 2, 3, 1).numpy()
    mode, lengths = _MODES[x.shape[1]], []
    for image in pixels:
        buffer = io.BytesIO()
        Image.fromarray(image[..., 0] if mode == "L" else image, mode).save(buffer, format="PNG", compress_level=9)
        lengths.append(8 * buffer.tell())
    return torch.tensor(lengths, dtype=torch.float64)


def complexity_score(log_p: Tensor, bits: Tensor) -> Tensor:
    r""":math:`-\log p(x) - \ell \ln 2`, :math:`\ell` the length of the compressed image in bits.

    It is minus the logarithm of the ratio of two probabilities, the model's and the codec's. For a density of pixels in
    [0, 1] a constant is missing, which changes no comparison of images.

    Example:
        >>> complexity_score(torch.tensor([-100.0]), torch.tensor([100.0])).item()   # 100 - 69.3
        30.68...

    Source: Serra et al., *Input complexity and out-of-distribution detection*, ICLR 2020, equation 2, in nats.
    """
    return -log_p - bits.to(log_p) * math.log(2)


def likelihood_ratio(log_p: Tensor, log_p_background: Tensor) -> Tensor:
    r""":math:`\log p_0(x) - \log p(x)`, :math:`p_0` a model of the background.

    Source: Ren et al., *Likelihood Ratios for Out-of-Distribution Detection*, NeurIPS 2019, equation 5, negated.
    """
    return log_p_background - log_p


def waic(log_p: Tensor) -> Tensor:
    r""":math:`\mathrm{Var}_k \log p_k(x) - \mathrm E_k \log p_k(x)` over models k, ``(K, N)`` to ``(N,)``.

    Raises:
        InputError: fewer than two models, which have no variance.

    Example:
        >>> waic(torch.tensor([[-1.0], [-3.0]])).item()   # variance 2, mean -2
        4.0

    Source: Choi, Jang and Alemi, *WAIC, but Why?*, 2018 (arXiv 1810.01392), negated; variance with K - 1.
    """
    if log_p.dim() != 2 or len(log_p) < 2:
        raise InputError(f"waic: expected log p (K, N) of at least 2 models, got shape {tuple(log_p.shape)}")
    return log_p.var(0) - log_p.mean(0)


def typicality(log_p: Tensor, train_log_p: Tensor) -> Tensor:
    r""":math:`|-\log p(x) - \hat H|`, :math:`\hat H` the mean of :math:`-\log p` over training images.

    Source: Nalisnick et al., *Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality*, 2019
        (arXiv 1906.02994), equation 4 with one image.
    """
    return (log_p - train_log_p.mean()).abs()


def chain_drift(model: Model, guide: Guide, x: Tensor, *, passes: int = 1, batch_size: int = 100) -> Tensor:
    r"""How far the encoding moves as the image is decoded and encoded again, ``(N,)`` in nats:

    .. math:: \frac1T \sum_{t=1}^T J\bigl(q(z|x),\, q(z|\hat x_t)\bigr),
        \qquad \hat x_t = \mathrm E[x | z = \mu(\hat x_{t-1})], \quad \hat x_0 = x,

    J half the sum of both Kullback-Leibler divergences. A pair that is consistent with itself, as the AVAE asks for,
    stays where it is on what it was trained on; there is no reason that it should on anything else.

    Args:
        model: with ``observe`` and ``decode``.
        guide: with ``encode``.
        x: ``(N, *event)``.
        passes: T.
        batch_size: images at a time.

    Raises:
        InputError: ``passes`` below 1.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import PPCA
        >>> model = PPCA(torch.ones(2, 1), mean=torch.ones(2), obs_variance=1.0)
        >>> guide = AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()))
        >>> bool(chain_drift(model, guide, torch.ones(1, 2)) < 1e-10)   # the mean encodes to 0 and decodes to itself
        True
    """
    if passes < 1:
        raise InputError(f"passes: expected at least 1, got {passes}")
    found = []
    with torch.no_grad(), frozen(model, guide):
        for part in x.split(batch_size):
            images = iterated_reconstructions(model, guide, part.to(device_of(guide, model)), passes)
            loc, scale = guide.encode(images[0])
            moved = [symmetric_kl(loc, scale, *guide.encode(image)) for image in images[1:]]
            found.append(torch.stack(moved).mean(0).cpu())
    return torch.cat(found)
