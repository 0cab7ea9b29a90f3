r"""Multi-scale structural similarity of images in [0, 1], with as many scales as the images have room for.

.. math:: \mathrm{MS\text{-}SSIM}(a, b) = l_S(a, b)^{\beta_S} \prod_{s=1}^{S} c_s(a, b)^{\beta_s}

(Wang, Simoncelli & Bovik 2003, eq. 7, with its equal exponents for contrast and structure, :math:`c_s` their product):
scale s is the image halved s − 1 times, :math:`l_S` compares luminance at the coarsest scale. The published S = 5 with
a Gaussian window of 11 × 11 pixels needs images of 176 pixels. A smaller image gets fewer scales here, and the first S
published exponents, rescaled to sum to 1. Values for different S are different measures: compare like with like.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["ms_ssim", "ms_ssim_settings"]

#: Side of the Gaussian window in pixels, and its standard deviation, as published.
_WINDOW = 11
_SIGMA = 1.5

#: The published exponents, finest scale first.
_EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim_settings(event_shape: Sequence[int]) -> dict[str, Any] | None:
    """The scales, exponents and window used on images of this shape; None for what MS-SSIM is not defined on.

    S is the largest number of scales, at most 5, for which the window fits into the coarsest one,
    side ≥ 11 · 2^(S−1), and torchmetrics accepts the image, side ≥ 11 · (S−1)²: 1 scale from 11 pixels, 2 from 22, 3
    from 44, 4 from 99, 5 from 176.

    Args:
        event_shape: shape of one image, ``(C, H, W)``. Other shapes, and images smaller than 11 pixels, give None.

    Example:
        >>> ms_ssim_settings((3, 28, 28))
        {'scales': 2, 'exponents': [0.1356, 0.8644], 'window': 11, 'sigma': 1.5}
        >>> ms_ssim_settings((784,)) is None
        True
    """
    if len(event_shape) != 3 or min(event_shape[1:]) < _WINDOW:
        return None
    exponents = _exponents(min(event_shape[1:]))
    return {
        "scales": len(exponents),
        "exponents": [round(exponent, 4) for exponent in exponents],
        "window": _WINDOW,
        "sigma": _SIGMA,
    }


def _exponents(side: int) -> tuple[float, ...]:
    """The exponents for images whose shorter side is ``side`` pixels."""
    fitting = [s for s in range(1, len(_EXPONENTS) + 1) if side >= _WINDOW * max(2 ** (s - 1), (s - 1) ** 2)]
    first = _EXPONENTS[: max(fitting)]
    return tuple(exponent / sum(first) for exponent in first)


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """MS-SSIM of each pair of images, ``(B, C, H, W)`` twice to ``(B,)``; 1 for equal images, at least 0.

    Pixels lie in [0, 1] (the data range is 1); scales as in :func:`ms_ssim_settings`. A negative contrast term counts
    as 0. Computed by torchmetrics.

    Raises:
        InputError: for tensors that are not images of one shape, or are smaller than 11 pixels.

    Example:
        >>> import torch
        >>> x = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
        >>> ms_ssim(x, x)
        tensor([1., 1.])
    """
    if a.shape != b.shape or ms_ssim_settings(a.shape[1:]) is None:
        raise InputError(
            f"ms_ssim: expected two batches of images (B, C, H, W) of one shape, {_WINDOW} pixels or more a side, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    similarity: Tensor = multiscale_structural_similarity_index_measure(
        a,
        b,
        sigma=_SIGMA,
        kernel_size=_WINDOW,
        betas=_exponents(min(a.shape[2:])),
        data_range=1.0,
        normalize="relu",
        reduction="none",
    )
    return similarity
