r"""Importance-weighted log-likelihood, and whether its weights can be trusted.

With :math:`z_s \sim q(z|x)` and :math:`w_s = p(x, z_s) / q(z_s|x)`, or what else the guide proposes
(:class:`~pyro_avae.proposal.Proposal`) with :math:`\mathbb E w_s = p(x)`,

.. math:: \log p(x) \ge \mathbb E \log \tfrac1S \sum_{s=1}^S w_s

(Burda et al. 2016, eq. 8). p(x, z) = p(x|z) p(z) is the plain joint, with ``model.prior``
or, where a model has none, N(0, I): an extended target carries a factor u = 1 that
is no density, so its weights would say nothing about log p(x).
"""

import math

import torch
from pyro.distributions import Normal
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.arviz_compat import pareto_k
from pyro_avae.evaluation.pair import Guide, Model
from pyro_avae.evaluation.width import parameters_per_value
from pyro_avae.proposal import Proposal, proposal_of

__all__ = ["MIN_PSIS_SAMPLES", "log_likelihood", "log_weights", "psis_khat"]

#: Fewer weights than this leave no tail to fit a generalised Pareto distribution to: a fifth of them is the tail. Of a
#: tail of five the first quartile is the smallest value, which ArviZ 1.x takes for no tail at all.
MIN_PSIS_SAMPLES = 30

# Values that the likelihood of one chunk may hold: 4 MiB of float32 on a CPU, so that it stays in the cache between the
# operations of a log density (half the time of what does not), 64 MiB on an accelerator, enough to keep it busy.
_CHUNK_VALUES = {"cpu": 2**20}
_CHUNK_VALUES_ELSEWHERE = 2**24

# Weights that agree to a part in a thousand have no tail; what is left of one is the rounding of log p(x, z).
_CONSTANT_SPREAD = 1e-3


def log_weights(model: Model, guide: Guide, x: Tensor, num_samples: int) -> Tensor:
    """``log p(x, z_s) − log q(z_s|x)`` in nats, ``(S, B)``, for S independent draws from q(z|x).

    Of a guide with a ``proposal`` z_s is what it draws, and its cost stands for log q: after
    :class:`~pyro_avae.guides.Hamiltonian` dynamics these are the weights of the extended space, momenta included.

    Decoding goes in chunks over samples and images, so that memory does not grow with S. Draws come from torch's global
    generator, as Pyro's do.

    Raises:
        InputError: for fewer than one sample.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import PPCA
        >>> _ = torch.manual_seed(0)
        >>> model = PPCA(torch.randn(4, 2), obs_variance=0.3)
        >>> guide = AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()))
        >>> x = torch.randn(3, 4)
        >>> weights = log_weights(model, guide, x, 5)
        >>> torch.allclose(weights, model.log_evidence(x).expand(5, 3), atol=1e-4)
        True
    """
    if num_samples < 1:
        raise InputError(f"num_samples: expected at least 1 importance sample, got {num_samples}")
    values = _CHUNK_VALUES.get(x.device.type, _CHUNK_VALUES_ELSEWHERE)
    if len(x):
        with torch.no_grad():
            values = max(1, values // parameters_per_value(model.observe(guide.posterior(x[:1]).mean)))
    images = max(1, min(len(x), values // max(1, x[0].numel())))
    samples = max(1, values // max(1, x[:images].numel()))
    with torch.no_grad():
        columns = []
        for part in x.split(images):
            proposal = proposal_of(guide, part)
            chunks = [
                _log_weights(model, proposal, part, min(samples, num_samples - s))
                for s in range(0, num_samples, samples)
            ]
            columns.append(torch.cat(chunks))
    return torch.cat(columns, dim=1)


def _log_weights(model: Model, proposal: Proposal, x: Tensor, num_samples: int) -> Tensor:
    """One chunk of :func:`log_weights`."""
    z, cost = proposal(num_samples)
    prior = model.prior(z) if hasattr(model, "prior") else Normal(torch.zeros_like(z), 1.0).to_event(1)
    weights: Tensor = model.observe(z).log_prob(x) + prior.log_prob(z) - cost
    return weights


def log_likelihood(weights: Tensor) -> Tensor:
    """Log-mean-exp over samples: ``(S, B)`` log weights to the estimates of log p(x), ``(B,)``, in nats.

    Example:
        >>> log_likelihood(torch.tensor([[0.0], [0.0]])).tolist()
        [0.0]
    """
    return weights.logsumexp(0) - math.log(len(weights))


def psis_khat(weights: Tensor) -> Tensor:
    """Pareto k̂ of each image's weights, ``(S, B)`` to ``(B,)``, through ArviZ (Vehtari et al. 2024).

    Above 0.7 the guide's tails are too light for its importance-weighted estimate to be trusted. Weights that are all
    equal (an exact posterior) have no tail; ArviZ would fit the rounding errors, so they are given k̂ = 0 here. Weights
    that are all zero or not numbers, or whose tail no generalised Pareto distribution fits, are given k̂ = ∞; never NaN,
    one of which would leave a batch without a median.

    Raises:
        InputError: for fewer than :data:`MIN_PSIS_SAMPLES` samples.

    Example:
        >>> psis_khat(torch.zeros(100, 2)).tolist()
        [0.0, 0.0]
    """
    if len(weights) < MIN_PSIS_SAMPLES:
        raise InputError(f"psis_khat: expected at least {MIN_PSIS_SAMPLES} importance samples, got {len(weights)}")
    values = weights.double().cpu()
    spread = values.amax(0) - values.amin(0)  # NaN where the largest is not finite
    khat = torch.zeros(values.shape[1], dtype=torch.float64)
    khat[spread.isnan()] = torch.inf
    # Of numbers so large that float32 rounds away more than that, nothing is known.
    rounding = torch.finfo(torch.float32).eps * values.abs().amax(0)
    khat[rounding >= _CONSTANT_SPREAD] = torch.inf
    varying = (spread >= _CONSTANT_SPREAD) & (rounding < _CONSTANT_SPREAD)
    if bool(varying.any()):
        khat[varying] = torch.from_numpy(pareto_k(values[:, varying].T.numpy()))
    return khat.to(weights.device)
