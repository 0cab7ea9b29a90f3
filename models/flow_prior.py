"""A learned prior of z: an autoregressive flow."""

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.transforms import AffineAutoregressive
from pyro.nn import AutoRegressiveNN
from torch import Tensor, nn

from pyro_avae.errors import InputError

__all__ = ["FlowPrior"]


class FlowPrior(nn.Module):
    r"""The prior of :math:`z = f(\epsilon),\ \epsilon \sim \mathcal N(0, I)`, f the inverse of autoregressive steps,

    .. math:: \log p(z) = \log \mathcal N(f^{-1}(z); 0, I) + \log\Bigl|\det \frac{d f^{-1}}{dz}\Bigr|.

    Each step of :math:`f^{-1}` is Pyro's ``AffineAutoregressive``, :math:`z_i \mapsto \mu_i(z_{<i}) + \sigma_i(z_{<i})
    z_i`, its order reversed from step to step. Densities are parallel, samples cost L runs of each step's network. The
    bound with this prior is, draw by draw, that of a standard normal prior, the decoder :math:`p(x|f(\epsilon))`, and
    the inverse autoregressive flow :math:`f^{-1}` on top of the posterior: at the same cost for the encoder, with the
    deeper generator.

    Args:
        latent_dim: L, at least 2.
        steps: of the flow.
        hidden: widths of each step's network (a MADE).
        mean_only: whether every :math:`\sigma_i` is 1, and so the volume too.

    Raises:
        InputError: fewer than 2 latents, or no step.

    Example:
        >>> from pyro_avae.models import VAE
        >>> model = VAE(nn.Linear(2, 5), latent_dim=2, prior=FlowPrior(2, steps=2, hidden=[8]))
        >>> model.sample(3).shape
        torch.Size([3, 5])

    Source: Chen et al. 2017 (arXiv 1611.02731), section 3.2, equations 12 to 14; 4 mean-only steps of 640 hidden units
        there, appendix A.
    """

    def __init__(
        self, latent_dim: int, *, steps: int = 4, hidden: Sequence[int] = (640,), mean_only: bool = True
    ) -> None:
        super().__init__()
        if latent_dim < 2 or steps < 1:
            raise InputError(
                f"latent_dim, steps: expected at least 2 latents and 1 step of the flow, got {latent_dim} and {steps}"
            )
        orders: Any = (torch.arange(latent_dim), torch.arange(latent_dim).flip(0))
        network: Any = _MeanOnly if mean_only else AutoRegressiveNN
        self.latent_dim = latent_dim
        self.steps = nn.ModuleList(
            _Step(network(latent_dim, list(hidden), permutation=orders[k % 2]))  # type: ignore[no-untyped-call]
            for k in range(steps)
        )

    def forward(self, base: TorchDistribution) -> TorchDistribution:
        """The law of f of a draw of ``base``, whose event shape is ``(L,)``."""
        self._forget()
        inverses = [step.inv for step in reversed(list(self.steps))]
        return dist.TransformedDistribution(base, inverses)

    def base(self, z: Tensor) -> Tensor:
        r""":math:`f^{-1}(z)`, ``(..., L)`` to the same shape."""
        self._forget()
        for step in self.steps:
            z = step(z)
        return z

    def _forget(self) -> None:
        """Pyro's steps remember their last result by the identity of its argument, parameters changed or not."""
        step: Any
        for step in self.steps:
            step.clear_cache()
            step._cached_log_scale = None

    def __getstate__(self) -> dict[str, Any]:
        self._forget()  # what they remember belongs to a graph, which cannot be copied
        return self.__dict__.copy()


class _Step(AffineAutoregressive):
    """Pyro's, with an inverse in the argument's own dtype."""

    def _inverse(self, y: Tensor) -> Tensor:
        x = [torch.zeros_like(y[..., 0])] * y.shape[-1]
        for place in self.arn.permutation.tolist():
            mean, log_scale = self.arn(torch.stack(x, -1))
            clipped = log_scale[..., place].clamp(self.log_scale_min_clip, self.log_scale_max_clip)
            x[place] = (y[..., place] - mean[..., place]) * torch.exp(-clipped)
        return torch.stack(x, -1)


class _MeanOnly(nn.Module):
    """A network of means alone; scales that are clipped to 1 would pass a gradient on all the same."""

    def __init__(self, size: int, hidden: list[int], *, permutation: Any) -> None:
        super().__init__()
        self.network = AutoRegressiveNN(size, hidden, param_dims=[1], permutation=permutation)

    @property
    def permutation(self) -> Tensor:
        found: Tensor = self.network.permutation
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(x), torch.zeros_like(x)
