"""The plain guide: q(z|x), Gaussian, its parameters from an encoder."""

import math
from typing import Any, Protocol

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.auxiliary_draw import auxiliary
from pyro_avae.batching import apply_batched, batch_size
from pyro_avae.errors import InputError
from pyro_avae.parameters import register_parameters
from pyro_avae.proposal import Proposal, drawn_from
from pyro_avae.sites import NOISY, PLATE, Z

__all__ = ["AmortizedGuide", "Dynamics"]


class Dynamics(Protocol):
    """Moves what the guide draws."""

    def __call__(self, x: Tensor, posterior: TorchDistribution, plate: Any, /) -> Tensor:
        """The guide's sites up to z, inside the plate; ``posterior`` is where they begin."""
        ...

    def proposal(self, x: Tensor, posterior: TorchDistribution, /) -> Proposal:
        """Draws of z as the sites make them, for importance sampling."""
        ...


class AmortizedGuide(nn.Module):
    r"""The amortised Gaussian posterior :math:`q(z|x;\eta)` as a Pyro guide.

    ::

        loc, scale = encoder(x)
        z ~ N(loc, scale)      # site "z", (B, L)

    With ``input_noise`` and in training mode it is ``encoder(x_noisy)``, ``x_noisy ~ N(x, input_noise^2 I)`` an
    auxiliary site: the denoising criterion of Im et al. 2017 (arXiv 1511.06406), a lower bound of the evidence with
    :math:`q(z|x) = \mathbb E\, q(z|x + \epsilon)`. :meth:`encode` and :meth:`posterior` add no noise.

    Args:
        encoder: an ``nn.Module`` that maps ``(B, *event)`` to ``(loc, scale)``; ``loc`` is ``(B, L)``, ``scale`` is
            ``(B, L)`` standard deviations or ``(B, L, L)`` a lower Cholesky factor.
        input_noise: standard deviation of the noise, in pixels of [0, 1].
        dynamics: what moves z on from q(z|x) before it is used, such as :class:`~pyro_avae.guides.Hamiltonian`.

    Raises:
        InputError: ``encoder`` is not an ``nn.Module``, or, when run, does not return such a pair; a negative
            ``input_noise``.

    Example:
        >>> import torch
        >>> from pyro_avae.guides import LinearEncoder
        >>> AmortizedGuide(LinearEncoder(5, 2)).posterior(torch.zeros(3, 5)).event_shape
        torch.Size([2])
    """

    def __init__(self, encoder: nn.Module, *, input_noise: float = 0.0, dynamics: Dynamics | None = None) -> None:
        super().__init__()
        if not isinstance(encoder, nn.Module):
            raise InputError(f"encoder: expected a torch.nn.Module, got {type(encoder).__name__}")
        if not 0 <= input_noise < math.inf:
            raise InputError(f"input_noise: expected a standard deviation of at least 0, got {input_noise!r}")
        self.encoder = encoder
        self.input_noise = input_noise
        self.dynamics = dynamics

    def forward(self, x: Tensor) -> Tensor:
        """Run the program on the data ``x`` ``(B, *event)`` and return z."""
        register_parameters(self)
        plate = pyro.plate(PLATE, batch_size(x))
        with plate:
            posterior = self.posterior(self.noisy(x), event_dim=x.dim() - 1)
        return self.draw(x, posterior, plate)

    def draw(self, x: Tensor, posterior: TorchDistribution, plate: Any) -> Tensor:
        """The site z, in the plate: from the posterior, or where the dynamics that begin there end."""
        if self.dynamics is not None:
            return self.dynamics(x, posterior, plate)
        with plate:
            z: Tensor = pyro.sample(Z, posterior)
        return z

    def proposal(self, x: Tensor) -> Proposal:
        """What importance sampling draws z from, ``x (B, *event)``: q(z|x), moved on where there are dynamics."""
        posterior = self.posterior(x)
        if self.dynamics is not None:
            return self.dynamics.proposal(x, posterior)
        return drawn_from(posterior)

    def noisy(self, x: Tensor) -> Tensor:
        """What training encodes: x, or inside the plate, with ``input_noise``, a draw of the site ``x_noisy``."""
        if not self.input_noise or not self.training:
            return x
        return auxiliary(NOISY, dist.Normal(x, self.input_noise).to_event(x.dim() - 1))

    def encode(self, x: Tensor, *, event_dim: int | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(loc, scale)`` of q(z|x).

        Args:
            x: ``(B, *event)``, or ``(..., B, *event)`` if ``event_dim`` says how many dimensions an event has.
            event_dim: dimensions of an event; by default all but the first.
        """
        if event_dim is None:
            event_dim = x.dim() - 1 if isinstance(x, Tensor) and x.dim() else 0
        out = apply_batched(self.encoder, x, event_dim=event_dim)
        return _checked_parameters(out, batch_dims=x.dim() - event_dim)

    def posterior(self, x: Tensor, *, event_dim: int | None = None) -> TorchDistribution:
        """Return q(z|x): batch shape ``(..., B)``, event shape ``(L,)``; arguments as :meth:`encode`."""
        loc, scale = self.encode(x, event_dim=event_dim)
        if scale.dim() > loc.dim():
            return dist.MultivariateNormal(loc, scale_tril=scale)
        return dist.Normal(loc, scale).to_event(1)


def _checked_parameters(out: Any, *, batch_dims: int) -> tuple[Tensor, Tensor]:
    expected = "encoder: expected it to return (loc, scale), loc (B, L), scale (B, L) or (B, L, L)"
    if not isinstance(out, tuple | list) or len(out) != 2 or not all(isinstance(t, Tensor) for t in out):
        raise InputError(f"{expected}, got {type(out).__name__}")
    loc, scale = out
    if loc.dim() != batch_dims + 1 or scale.shape not in (loc.shape, (*loc.shape, loc.shape[-1])):
        raise InputError(f"{expected}, got loc {tuple(loc.shape)} and scale {tuple(scale.shape)}")
    return loc, scale
