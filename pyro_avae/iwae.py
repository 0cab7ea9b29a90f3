"""The importance-weighted bound, as a Pyro ``ELBO`` that stays in tensors."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.distributions.util import detach
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.penalties import Penalty
from pyro_avae.tensor_elbo import TensorELBO, scored

__all__ = ["IWAE_ELBO", "WeightedTerms"]

#: The term that the spread of the importance weights makes: their entropy less log K, at most 0.
WEIGHTS = "importance_weights"


class WeightedTerms(NamedTuple):
    """The importance-weighted bound, site by site, in nats, summed over the batch.

    Attributes:
        sites: of every site its log density (of a latent one less that of the guide), averaged over the samples with
            the normalised importance weights; and ``"importance_weights"``. They add up to the bound.
        entropy: empty; the bound leaves nothing out.
        loss: minus the bound, 0-d, with gradients.
    """

    sites: dict[str, Tensor]
    entropy: dict[str, Tensor]
    loss: Tensor


class IWAE_ELBO(TensorELBO):
    r"""The bound of K importance samples for each image, which rises with K to the evidence.

    .. math::
        \mathcal L_K = \sum_b \mathbb E\, \log \frac1K \sum_{k=1}^K w_{bk}, \qquad
        w_{bk} = \frac{p(x_b, z_{bk})}{q(z_{bk}|x_b)}, \qquad z_{bk} \sim q(z|x_b).

    Weights are normalised image by image: every site has to stand in the one plate of the data. With
    :math:`\tilde w` the normalised weights and H their entropy,

    .. math:: \log \tfrac1K \textstyle\sum_k w_k = \sum_k \tilde w_k \log w_k + H(\tilde w) - \log K,

    which are the terms that :meth:`evaluate` tells. ``K = 1`` is the ELBO, with log q - log p at the sample.

    The guide's gradient has a signal-to-noise ratio that falls with K. ``dreg`` takes the doubly reparametrised one,

    .. math:: \nabla_\phi \mathcal L_K = \mathbb E \sum_k \tilde w_k^2\,
        \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},

    of equal mean and smaller variance; the model's stays :math:`\sum_k \tilde w_k \nabla_\theta \log w_k`. It runs the
    model a second time, on the samples held constant, which a compiled step does once.

    Args:
        num_particles: K.
        dreg: whether the guide's gradient is the doubly reparametrised one.
        max_plate_nesting: 1, the plate of the data.
        vectorize_particles: draw the K samples side by side.
        penalties: by the name of their term, what is subtracted from the bound: their mean over the K samples.

    Raises:
        InputError: options out of range; on use, a site outside the plate, or scaled.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> model, guide = VAE(torch.nn.Linear(2, 5), latent_dim=2), AmortizedGuide(LinearEncoder(5, 2))
        >>> terms = IWAE_ELBO(num_particles=5).terms(model, guide, torch.zeros(3, 5))
        >>> sorted(terms), bool(terms["importance_weights"] <= 0)
        (['importance_weights', 'x', 'z'], True)

    Source: Burda, Grosse, Salakhutdinov, *Importance Weighted Autoencoders*, ICLR 2016, equation 8; Tucker, Lawson, Gu,
        Maddison, *Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives*, ICLR 2019, equation 8.
    """

    def __init__(
        self,
        *,
        num_particles: int,
        dreg: bool = False,
        max_plate_nesting: int = 1,
        vectorize_particles: bool = True,
        penalties: Mapping[str, Penalty] | None = None,
    ) -> None:
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
            penalties=penalties,
        )
        self.dreg = dreg

    def evaluate(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> WeightedTerms:
        """Run the pair and return the bound and its terms."""
        traces = list(self._get_traces(model, guide, args, kwargs))  # type: ignore[no-untyped-call]
        parts = _stacked([_log_weights(*pair, detached=self.dreg) for pair in traces])
        log_weights = torch.stack(list(parts.values())).sum(0)
        weights = log_weights.detach().softmax(0)
        if self.dreg:
            held = [self._held(model, guide_trace, args, kwargs) for _, guide_trace in traces]
            constant = torch.stack(list(_stacked(held).values())).sum(0)
            # Values cancel but for the first term's; gradients are those of the class's formulas.
            surrogate = (weights**2 * log_weights + (weights - weights**2) * constant).sum()
            bound = _log_mean(log_weights).sum().detach() + surrogate - surrogate.detach()
        else:
            bound = _log_mean(log_weights).sum()
        sites = {name: (weights * part.detach()).sum() for name, part in parts.items()}
        spread = torch.special.entr(weights).sum() - math.log(self.num_particles) * log_weights.shape[1]
        each = [self._penalties(model, guide_trace) for _, guide_trace in traces]
        penalties = {name: sum(one[name] for one in each) / self.num_particles for name in self.penalties}
        return WeightedTerms(
            {**sites, WEIGHTS: spread, **penalties}, {}, -torch.stack([bound, *penalties.values()]).sum()
        )

    def _held(self, model: Callable[..., Any], guide_trace: Trace, args: Any, kwargs: Any) -> dict[str, Tensor]:
        """The log weights of the same samples, with gradients to the model's parameters alone."""
        constant = guide_trace.copy()
        for node in constant.nodes.values():
            if node["type"] == "sample" and isinstance(node["value"], Tensor):
                node["value"] = node["value"].detach()
        program = self._vectorized(model) if self.vectorize_particles and self.num_particles > 1 else model
        replayed = poutine.trace(poutine.replay(program, trace=constant)).get_trace(*args, **kwargs)
        return _log_weights(prune_subsample_sites(replayed), constant, detached=True)

    def _vectorized(self, model: Callable[..., Any]) -> Callable[..., Any]:
        return self._vectorized_num_particles(model)  # type: ignore[no-untyped-call]


def _log_weights(model_trace: Trace, guide_trace: Trace, *, detached: bool) -> dict[str, Tensor]:
    """log p of each site of the model, less log q where the guide drew it, ``(..., B)``."""
    parts: dict[str, Tensor] = {}
    for trace, sign in ((model_trace, 1), (guide_trace, -1)):
        for name, site in scored(trace).items():
            found = sign * _row_log_prob(site, detached=detached and sign < 0)
            parts[name] = parts[name] + found if name in parts else found
    return parts


def _row_log_prob(site: Mapping[str, Any], *, detached: bool) -> Tensor:
    if isinstance(site["scale"], Tensor) or site["scale"] != 1:
        raise InputError(f"site {site['name']!r}: scaled, which an importance weight cannot be")
    fn = detach(site["fn"]) if detached else site["fn"]
    log_prob: Tensor = fn.log_prob(site["value"], *site["args"], **site["kwargs"])
    if not log_prob.dim():
        raise InputError(
            f"site {site['name']!r}: stands outside the plate of the data; weights are normalised image by image"
        )
    return log_prob if site["mask"] is None else log_prob * site["mask"]


def _stacked(each: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """``(K, B)`` of each site: particles drawn side by side are there already."""
    if len(each) == 1:
        return {name: part if part.dim() > 1 else part[None] for name, part in each[0].items()}
    return {name: torch.stack([parts[name] for parts in each]) for name in each[0]}


def _log_mean(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))
