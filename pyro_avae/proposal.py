"""What importance sampling draws latents from, and what a draw costs."""

from functools import partial
from typing import Any, Protocol

from torch import Tensor

__all__ = ["Proposal", "drawn_from", "proposal_of"]


class Proposal(Protocol):
    r"""Draws of z for some data x.

    Of S draws for each of B rows, z ``(S, B, L)``, the cost :math:`c`, ``(S, B)``, in nats, is what makes

    .. math:: \mathbb E\, p(x, z)\, e^{-c} = p(x).

    Drawn from a density, it is :math:`\log q(z|x)`. Where further random numbers move z on there is no such density at
    hand; the equation is all that an importance-weighted estimate asks for.
    """

    def __call__(self, num_samples: int, /) -> tuple[Tensor, Tensor]:
        """S independent draws for each row of x, from torch's global generator, and their cost."""
        ...


def drawn_from(posterior: Any) -> Proposal:
    """The proposal that draws from a distribution, batch shape ``(B,)``, event shape ``(L,)``.

    Example:
        >>> import torch
        >>> from pyro.distributions import Normal
        >>> z, cost = drawn_from(Normal(torch.zeros(4, 2), 1.0).to_event(1))(10)
        >>> z.shape, cost.shape
        (torch.Size([10, 4, 2]), torch.Size([10, 4]))
    """
    return partial(_draw, posterior)


def proposal_of(guide: Any, x: Tensor) -> Proposal:
    """The guide's ``proposal(x)``; of a guide without, draws from its ``posterior(x)``."""
    found: Proposal = guide.proposal(x) if hasattr(guide, "proposal") else drawn_from(guide.posterior(x))
    return found


def _draw(posterior: Any, num_samples: int) -> tuple[Tensor, Tensor]:
    z = posterior.sample((num_samples,))
    return z, posterior.log_prob(z)
