"""The likelihood of pixels with a given number of levels: a mixture of logistic distributions, cut into bins."""

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid, softplus

from pyro_avae.errors import InputError

__all__ = ["DiscretizedLogisticMixture", "LogisticMixture"]

#: The smallest log scale, in units of the pixel range: a fiftieth of a level of 256.
_LEAST_LOG_SCALE = -9.0


class DiscretizedLogisticMixture(TorchDistribution):
    r"""A mixture of logistics on levels :math:`0, 1/(n-1), \dots, 1`,

    .. math:: P(x) = \sum_k \pi_k \Bigl[\sigma\Bigl(\frac{x + \delta - \mu_k}{s_k}\Bigr)
        - \sigma\Bigl(\frac{x - \delta - \mu_k}{s_k}\Bigr)\Bigr], \qquad \delta = \frac{1}{2(n-1)},

    the lowest bin open below and the highest above, so that it sums to 1.

    Args:
        logits: of the components, ``(*batch, K)``.
        loc: :math:`\mu`, in pixels of [0, 1], ``(*batch, K)``.
        log_scale: :math:`\log s`, ``(*batch, K)``.
        levels: n.

    Example:
        >>> d = DiscretizedLogisticMixture(torch.zeros(2), torch.tensor([0.2, 0.8]), torch.full((2,), -3.0), levels=4)
        >>> x = torch.arange(4) / 3
        >>> torch.allclose(d.log_prob(x).exp().sum(), torch.tensor(1.0))
        True

    Source: Salimans, Karpathy, Chen, Kingma, *PixelCNN++*, ICLR 2017 (arXiv 1701.05517), equation 2.
    """

    arg_constraints = {  # noqa: RUF012  # torch's class attribute
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }
    support = constraints.unit_interval
    has_rsample = False

    def __init__(
        self, logits: Tensor, loc: Tensor, log_scale: Tensor, *, levels: int = 256, validate_args: bool | None = None
    ) -> None:
        self.logits, self.loc, self.log_scale = torch.broadcast_tensors(logits, loc, log_scale)
        self.levels = levels
        super().__init__(self.loc.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "DiscretizedLogisticMixture":
        """The same, expanded to ``batch_shape``."""
        shape = torch.Size(batch_shape) + self.loc.shape[-1:]
        parts = (part.expand(shape) for part in (self.logits, self.loc, self.log_scale))
        return DiscretizedLogisticMixture(*parts, levels=self.levels, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """log P(x) of pixels in [0, 1]; values between two levels count as in the bin around them."""
        if self._validate_args:
            self._validate_sample(value)
        half = 0.5 / (self.levels - 1)
        x = value.unsqueeze(-1)
        upper, lower = self._standard(x + half), self._standard(x - half)
        # log(sigmoid(u) - sigmoid(l)) without a difference of near numbers, by the width of the bin u - l.
        width = 2 * half * torch.exp(-self.log_scale)
        inside = logsigmoid(upper) + logsigmoid(-lower) + torch.log(-torch.expm1(-width))
        component = torch.where(x < half, logsigmoid(upper), torch.where(x > 1 - half, logsigmoid(-lower), inside))
        return torch.logsumexp(component + self.logits.log_softmax(-1), -1)

    def _standard(self, x: Tensor) -> Tensor:
        return (x - self.loc) * torch.exp(-self.log_scale)

    @property
    def mean(self) -> Tensor:
        """The mean of the levels: of every bin's edge, the probability to lie above it."""
        edges = (torch.arange(self.levels - 1, dtype=self.loc.dtype, device=self.loc.device) + 0.5) / (self.levels - 1)
        weights, total = self.logits.softmax(-1), torch.zeros_like(self.loc)
        for part in edges.split(16):  # all at once would be 255 times the image
            total = total + torch.sigmoid(-self._standard_at(part)).sum(0)
        return (weights * total).sum(-1) / (self.levels - 1)

    def _standard_at(self, edges: Tensor) -> Tensor:
        return self._standard(edges.reshape(-1, *[1] * self.loc.dim()))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # as in torch
        """Draw a level, without gradient."""
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            # A component by its cumulated probability, as every draw is one of a uniform number.
            uniform = torch.rand((*shape, 1), dtype=self.loc.dtype, device=self.loc.device)
            below = self.logits.softmax(-1).cumsum(-1)[..., :-1]
            chosen = (uniform > below).sum(-1, keepdim=True)
            loc = self.loc.expand(*shape, -1).gather(-1, chosen).squeeze(-1)
            scale = self.log_scale.expand(*shape, -1).gather(-1, chosen).squeeze(-1).exp()
            # Open at both ends, where the logistic is infinite.
            tiny = torch.finfo(loc.dtype).tiny
            second = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(min=tiny)
            x = loc + scale * (second.log() - torch.log1p(-second).clamp(min=-87.0))
            return (x * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)


class LogisticMixture:
    """The likelihood of pixels in [0, 1] with 256 levels, from ``3 K`` numbers for each channel of a pixel.

    Args:
        components: K.
        levels: of a pixel.

    Raises:
        InputError: fewer than one component or two levels; on use, a decoder of other than ``3 K`` numbers a channel.

    Example:
        >>> LogisticMixture(components=2)(torch.zeros(5, 6, 4, 4)).batch_shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(self, *, components: int = 5, levels: int = 256) -> None:
        if components < 1 or levels < 2:
            raise InputError(
                f"components, levels: expected at least 1 component and 2 levels, got {components} and {levels}"
            )
        self.components, self.levels = components, levels

    @property
    def outputs(self) -> int:
        """Numbers that it takes for each channel of a pixel."""
        return 3 * self.components

    def __call__(self, out: Tensor) -> DiscretizedLogisticMixture:
        """``(..., C * 3 K, H, W)`` to a distribution of batch shape ``(..., C, H, W)``."""
        if out.dim() < 4 or out.shape[-3] % self.outputs:
            raise InputError(
                f"decoder: expected {self.outputs} numbers for each channel of a pixel, (B, C * {self.outputs}, H, W),"
                f" got {tuple(out.shape)}"
            )
        parts = out.unflatten(-3, (-1, 3, self.components)).movedim(-3, -1)  # (..., C, 3, H, W, K)
        logits, loc, scale = parts.unbind(-4)
        # Begins with means spread over [0, 1] and scales of about 0.1; the scale cannot fall to 0.
        spread = torch.linspace(0.1, 0.9, self.components, dtype=out.dtype, device=out.device)
        log_scale = _LEAST_LOG_SCALE + softplus(scale - _LEAST_LOG_SCALE - 2.3)
        return DiscretizedLogisticMixture(logits, spread + loc, log_scale, levels=self.levels)
