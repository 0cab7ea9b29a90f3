"""The categorical likelihood of pixels with 256 levels."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_avae.errors import InputError

__all__ = ["LEVELS", "CategoricalPixels", "categorical"]

#: Levels of a pixel: k/255 for k = 0, ..., 255.
LEVELS = 256


class CategoricalPixels(TorchDistribution):
    r"""A categorical distribution over the 256 levels of each pixel and channel, all of them independent:

    .. math:: \log p(x) = \ell_k - \log \sum_j e^{\ell_j}, \qquad k = \mathrm{round}(255\,x).

    Samples and values are levels k/255 as floating-point numbers, so that an encoder can read them. log p is that of a
    discrete x, in nats: it is at most 0, and not to be compared with a density.

    Args:
        logits: :math:`\ell`, ``(..., C, 256, H, W)``; batch shape ``(..., C, H, W)``, event shape ``()``.
        validate_args: as of every torch distribution.

    Raises:
        InputError: ``logits`` without 256 levels in their third-last dimension.

    Example:
        >>> pixels = CategoricalPixels(torch.zeros(1, 256, 2, 2))
        >>> pixels.batch_shape, round(float(pixels.log_prob(torch.full((1, 2, 2), 3 / 255)).exp()[0, 0, 0] * 256), 4)
        (torch.Size([1, 2, 2]), 1.0)
    """

    arg_constraints = {"logits": constraints.real}  # noqa: RUF012  as torch declares them
    support = constraints.unit_interval
    has_rsample = False

    def __init__(self, logits: Tensor, *, validate_args: bool | None = None) -> None:
        if logits.dim() < 3 or logits.shape[-3] != LEVELS:
            raise InputError(f"logits: expected (..., C, {LEVELS}, H, W), got shape {tuple(logits.shape)}")
        self.logits = logits
        batch_shape = logits.shape[:-3] + logits.shape[-2:]
        super().__init__(batch_shape, validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "CategoricalPixels":
        """The same distribution with further batch dimensions in front."""
        new = self._get_checked_instance(CategoricalPixels, _instance)  # type: ignore[no-untyped-call]
        shape = torch.Size(batch_shape)
        new.logits = self.logits.expand((*shape[:-2], LEVELS, *shape[-2:]))
        super(CategoricalPixels, new).__init__(shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """``(..., C, H, W)`` in nats, for values in [0, 1], rounded to the nearest level."""
        if self._validate_args:
            self._validate_sample(value)
        level = (value * (LEVELS - 1)).round().long().unsqueeze(-3)
        log_probs = self.logits.log_softmax(-3)
        shape = torch.broadcast_shapes(level.shape, log_probs[..., :1, :, :].shape)
        log_probs = log_probs.expand(shape[:-3] + log_probs.shape[-3:])
        return log_probs.gather(-3, level.expand(shape)).squeeze(-3)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Levels k/255, ``(*sample_shape, ..., C, H, W)``: where a uniform number falls among the cumulated ones."""
        with torch.no_grad():
            steps = self.logits.softmax(-3).cumsum(-3)
            shape = self._extended_shape(sample_shape)
            u = torch.rand(shape, dtype=steps.dtype, device=steps.device) * steps[..., -1, :, :]
            level = (steps <= u.unsqueeze(-3)).sum(-3).clamp(max=LEVELS - 1)
            return level.to(steps.dtype) / (LEVELS - 1)

    @property
    def mean(self) -> Tensor:
        """The expected level over 255, differentiable."""
        return self._moment(1)

    @property
    def variance(self) -> Tensor:
        """In squared pixels of [0, 1]."""
        return (self._moment(2) - self._moment(1).square()).clamp_min(0)

    def _moment(self, power: int) -> Tensor:
        probs = self.logits.softmax(-3)
        levels = torch.linspace(0, 1, LEVELS, dtype=probs.dtype, device=probs.device).pow(power)
        return (probs * levels[:, None, None]).sum(-3)


def categorical(out: Tensor) -> TorchDistribution:
    """The likelihood of pixels k/255, from 256 logits a pixel and channel: ``(..., C * 256, H, W)``.

    Its sample has no derivative: see ``gradient="cut"``.

    Raises:
        InputError: a number of channels that 256 does not divide.

    Example:
        >>> categorical(torch.zeros(5, 3 * 256, 4, 4)).batch_shape
        torch.Size([5, 3, 4, 4])
    """
    if out.dim() < 3 or out.shape[-3] % LEVELS:
        raise InputError(
            f"categorical: expected {LEVELS} outputs of the decoder a channel, (..., C * {LEVELS}, H, W), got shape"
            f" {tuple(out.shape)}"
        )
    return CategoricalPixels(out.unflatten(-3, (-1, LEVELS)))
