r"""The view of the smooth encoder: the point near x whose encoding is farthest from that of x."""

import math
from collections.abc import Callable

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.auxiliary_draw import auxiliary
from pyro_avae.errors import InputError
from pyro_avae.wasserstein import squared_wasserstein

__all__ = ["WorstCase"]


class WorstCase:
    r"""Projected gradient ascent on the distance between posteriors, within a ball around x.

    .. math:: \tilde x \approx \arg\max_{\|\tilde x - x\|_\infty \le \epsilon,\; \tilde x \in [0,1]}
              W_2^2\big(q(z|\tilde x),\, q(z|x)\big)

    It begins at a uniform random point of the ball and takes signed gradient steps of ``step_size``, each projected.
    The result is a constant: no gradient runs through the search, and none reaches the parameters from it. In a chain
    each link searches around the one before.

    Args:
        epsilon: the radius, in pixels of [0, 1].
        steps: gradient steps; :math:`L` of the paper's :math:`\mathrm{SE}^L_\epsilon`.
        step_size: of one step; by default 2.5 ε / steps, so that any point of the ball can be reached.
        bounds: what pixels may be; None for data that are not images in [0, 1].
        distance: of two encodings, larger is worse, ``(...)`` of batch shape ``(...)``.

    Raises:
        InputError: a radius, count or size that is not above 0.

    Example:
        >>> import pyro.distributions as dist
        >>> def encode(x):
        ...     return dist.Normal(x @ torch.tensor([[1.0], [-2.0]]), 1.0).to_event(1)
        >>> x = torch.full((1, 2), 0.5)
        >>> WorstCase(epsilon=0.1)("x_aux", x, torch.zeros(1, 1), decode=encode, encode=encode).sub(x).abs()
        tensor([[0.1000, 0.1000]])

    Source: Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020, section 3.1 and
        appendix B.
    """

    #: A guide that has no data cannot use it.
    needs_data = True

    def __init__(
        self,
        *,
        epsilon: float,
        steps: int = 5,
        step_size: float | None = None,
        bounds: tuple[float, float] | None = (0.0, 1.0),
        distance: Callable[[TorchDistribution, TorchDistribution], Tensor] = squared_wasserstein,
    ) -> None:
        if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < math.inf:
            raise InputError(f"epsilon: expected a radius above 0, got {epsilon!r}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps: expected an integer of at least 1, got {steps!r}")
        if step_size is not None and (not isinstance(step_size, int | float) or not step_size > 0):
            raise InputError(f"step_size: expected a number above 0, got {step_size!r}")
        self.epsilon, self.steps, self.bounds, self.distance = epsilon, steps, bounds, distance
        self.step_size = 2.5 * epsilon / steps if step_size is None else step_size

    def __call__(
        self,
        name: str,
        x: Tensor,
        z: Tensor,
        *,
        decode: Callable[[Tensor], TorchDistribution],
        encode: Callable[[Tensor], TorchDistribution],
    ) -> Tensor:
        x = x.detach()
        with torch.no_grad():
            origin = encode(x)
        found = self._search(x, origin, encode)
        return auxiliary(name, dist.Delta(found, event_dim=x.dim() - len(origin.batch_shape)))

    def _search(self, x: Tensor, origin: TorchDistribution, encode: Callable[[Tensor], TorchDistribution]) -> Tensor:
        """The point that the search ends at."""
        low, high = self._ball(x)
        start = x + (2 * torch.rand_like(x) - 1) * self.epsilon
        current = torch.minimum(torch.maximum(start, low), high)
        for _ in range(self.steps):
            with torch.enable_grad():
                current = current.detach().requires_grad_()
                distance = self.distance(encode(current), origin).sum()
                (gradient,) = torch.autograd.grad(distance, current)
            stepped = current.detach() + self.step_size * gradient.sign()
            current = torch.minimum(torch.maximum(stepped, low), high)
        return current.detach()

    def _ball(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low, high = x - self.epsilon, x + self.epsilon
        if self.bounds is None:
            return low, high
        return low.clamp(min=self.bounds[0]), high.clamp(max=self.bounds[1])
