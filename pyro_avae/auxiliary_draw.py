"""A draw inside a guide that traces show, ``exact_bound`` reads, and no ELBO scores."""

from typing import Any

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from pyro.poutine.runtime import Message, am_i_wrapped, apply_stack
from torch import Tensor

__all__ = ["AUXILIARY", "auxiliary"]

#: Key of a site's ``infer`` dictionary under which the distribution of an auxiliary draw is kept.
AUXILIARY = "auxiliary_distribution"


def auxiliary(name: str, distribution: TorchDistribution) -> Tensor:
    r"""Draw :math:`\tilde x` from a distribution of the guide whose density is no part of the bound.

    In :math:`\mathcal Q = q(z'|\tilde x)\, p_\theta(\tilde x|z)\, q(z|x)` the factor :math:`p_\theta(\tilde x|z)` is
    held constant, and its entropy with it: the sample counts, the density does not. The draw is reparametrised where
    the distribution allows it. It is recorded as an observed, masked Delta: an ordinary site, even with
    ``poutine.mask(mask=False)``, keeps a score-function term for a distribution such as Bernoulli, which gives the
    right loss and a wrong gradient.

    Args:
        name: the site's name, e.g. ``"x_aux"``.
        distribution: a Pyro distribution with ``batch_shape`` matching the enclosing plates.

    Returns:
        The draw, ``batch_shape + event_shape``.

    Example:
        >>> import pyro.distributions as dist, torch
        >>> _ = torch.manual_seed(0)
        >>> trace = pyro.poutine.trace(lambda: auxiliary("x_aux", dist.Normal(0.0, 1.0))).get_trace()
        >>> trace.log_prob_sum()
        tensor(0.)
    """
    value = _draw(name, distribution)
    delta = dist.Delta(value, event_dim=distribution.event_dim).mask(False)
    infer: Any = {"is_auxiliary": True, "_deterministic": True, AUXILIARY: distribution}
    recorded: Tensor = pyro.sample(name, delta, obs=value, infer=infer)
    return recorded


def _draw(name: str, distribution: TorchDistribution) -> Tensor:
    """Draw through Pyro's handlers, as a message of a type of its own, so that a handler can put a value there."""
    if not am_i_wrapped():
        value: Tensor = distribution()
        return value
    message = Message(
        type="auxiliary",
        name=name,
        fn=distribution,
        is_observed=False,
        args=(),
        kwargs={},
        value=None,
        scale=1.0,
        mask=None,
        cond_indep_stack=(),
        done=False,
        stop=False,
        continuation=None,
        infer={},
    )
    apply_stack(message)
    drawn: Any = message["value"]
    return drawn
