"""The exact expected loss of a linear-Gaussian pair, and its check against Monte Carlo."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.infer import ELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import Tensor

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.linear_gaussian.double_precision import create_parameters, in_double
from pyro_avae.linear_gaussian.reading import AffineFactor, read_pair
from pyro_avae.linear_gaussian.verification import BoundCheck, check_bound

__all__ = ["exact_bound", "exact_second_moment", "exact_terms", "verify_bound"]

Program = Callable[..., Any]

#: Stock objectives whose expectation is that of log q - log p; subclasses of theirs compute something else.
_STOCK = (Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO)


def exact_bound(model: Program, guide: Program, x: Tensor, elbo: ELBO | None = None) -> Tensor:
    r"""The exact expected loss of a linear-Gaussian pair: what the ELBO's Monte Carlo estimates average to.

    Nothing is known of the pair beforehand. Every site's mean, as an affine function
    :math:`\mu_s = m_s + M_s\epsilon` of the guide's standard normal noise, and its covariance :math:`\Sigma_s` are read
    off the two Pyro programs by running them, and

    .. math::
        \mathbb E \log \mathcal N(v; \mu, \Sigma)
            = -\tfrac12\Big(\log\det 2\pi\Sigma + \|L^{-1}(v_0 - m)\|^2 + \textstyle\sum_k \|L^{-1}(V_k - M_k)\|^2\Big)

    with :math:`\Sigma = LL^\top` and v = v_0 + V epsilon, is added up over the sites of the model and subtracted over
    those of the guide. A gradient that the programs stop (``detach``) is stopped here too: the gradient of the result
    is the one that the estimator has in expectation, which with ``gradient="cut"`` is not that of the value.

    Args:
        model: any Pyro program of ``x``: a module, a method or a function. Its parameters are those in Pyro's store
            and in modules that it is, is a method of, or refers to (in a list, tuple or dictionary too); a loose tensor
            in a closure must be float64, and has no row in :func:`verify_bound`.
        guide: likewise. An auxiliary draw goes through :func:`pyro_avae.auxiliary`.
        x: data; computed in float64.
        elbo: the objective; its ``weights`` count. Default ``AVAE_ELBO()``; Pyro's ``Trace_ELBO``,
            ``TraceMeanField_ELBO`` and ``TraceGraph_ELBO`` have the same expectation.

    Returns:
        0-d float64, in nats, summed over the batch, differentiable with respect to the original parameters.

    Raises:
        InputError: the pair is not linear-Gaussian (the site is named), randomness outside Pyro sites and ``auxiliary``
            (it is named), or an objective of another kind.

    Example:
        >>> from pyro_avae.models import PPCA
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> ppca = PPCA(torch.tensor([[1.0], [0.5]]), obs_variance=0.5)
        >>> guide = AmortizedGuide(LinearEncoder.from_affine(*ppca.posterior_map()))
        >>> x = torch.tensor([[1.0, 0.0]])
        >>> bool((exact_bound(ppca, guide, x) + ppca.log_evidence(x)).abs() < 1e-6)
        True
    """
    return -torch.stack(list(exact_terms(model, guide, x, elbo).values())).sum()


def exact_terms(model: Program, guide: Program, x: Tensor, elbo: ELBO | None = None) -> dict[str, Tensor]:
    """The terms of :func:`exact_bound` by site, as :meth:`AVAE_ELBO.terms` names them; they add up to minus the loss.

    Arguments and errors as :func:`exact_bound`.
    """
    weights, kl_weight = _weights(elbo)
    factors = _factors(model, guide, x)
    latent = {f.name for f in factors if f.drawn}
    terms: dict[str, Tensor] = {}
    for factor in factors:
        value = _expected_log_density(factor) * (kl_weight if factor.name in latent else 1.0)
        terms[factor.name] = terms.get(factor.name, 0.0) + (value if factor.role == "model" else -value)
    unknown = weights.keys() - terms.keys()
    if unknown:
        raise InputError(f"weights: no term {sorted(unknown)} in this bound, its terms are {sorted(terms)}")
    return {name: weights.get(name, 1.0) * term for name, term in terms.items()}


def exact_second_moment(model: Program, guide: Program, x: Tensor, site: str, other: str) -> Tensor:
    r"""The exact :math:`\mathbb E[v\, v'^\top]` of two vector-valued latents under the guide.

    Args:
        model: see :func:`exact_bound`.
        guide: see :func:`exact_bound`.
        x: data.
        site: name of v, an event of shape ``(d,)``.
        other: name of v', an event of shape ``(d',)``.

    Returns:
        float64 ``(*batch, d, d')``.

    Raises:
        InputError: as :func:`exact_bound`; a site that the guide does not draw, or whose event is no vector.
    """
    drawn = {f.name: f for f in _factors(model, guide, x) if f.drawn}
    for name in (site, other):
        if name not in drawn:
            raise InputError(f"site {name!r}: the guide does not draw it, it draws {sorted(drawn)}")
        if drawn[name].event_dim != 1:
            raise InputError(
                f"site {name!r}: expected a vector-valued site, its event has {drawn[name].event_dim} axes"
            )
    return torch.einsum("k...i,k...j->...ij", drawn[site].value, drawn[other].value)


def verify_bound(
    model: Program, guide: Program, elbo: ELBO, x: Tensor, *, num_samples: int = 1000, seed: int = 0
) -> BoundCheck:
    """Set the exact loss and gradients beside Monte Carlo ones.

    Args:
        model: see :func:`exact_bound`.
        guide: see :func:`exact_bound`.
        elbo: the objective under test, with a ``differentiable_loss``.
        x: data.
        num_samples: how many losses to draw, at least 2.
        seed: of the noise; the caller's random state is left as it was.

    Returns:
        A table, one row for the loss and one for each parameter's gradient, with z-scores; ``print`` it.

    Raises:
        InputError: as :func:`exact_bound`; ``num_samples`` below 2; an objective without ``differentiable_loss``.
    """
    if not hasattr(elbo, "differentiable_loss"):
        raise InputError(f"elbo: expected an objective with differentiable_loss, {type(elbo).__name__} has none")
    _check_data(x)
    return check_bound(
        lambda: elbo.differentiable_loss(model, guide, x),
        lambda: exact_bound(model, guide, x, elbo),
        model,
        guide,
        num_samples=num_samples,
        seed=seed,
    )


def _check_data(x: Tensor) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.numel() == 0 or not bool(x.isfinite().all()):
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x: expected a non-empty tensor of finite floating numbers, got {got}")


def _factors(model: Program, guide: Program, x: Tensor) -> list[AffineFactor]:
    _check_data(x)
    create_parameters(model, guide, x)
    try:
        with torch.enable_grad():
            return in_double(lambda: read_pair(model, guide, x.double()), model, guide)
    except RuntimeError as error:
        if "dtype" not in str(error):
            raise
        raise InputError(
            "exact_bound: the pair is run in float64, but it uses a float32 tensor that is neither in Pyro's parameter"
            f" store nor in a module that the programs are, refer to or are methods of ({str(error).splitlines()[0]})"
        ) from error


def _weights(elbo: ELBO | None) -> tuple[Mapping[str, float], float]:
    if elbo is None or type(elbo) in _STOCK:
        return {}, 1.0
    if isinstance(elbo, AVAE_ELBO):
        return elbo.weights, float(elbo.kl_weight)
    raise InputError(
        f"elbo: expected AVAE_ELBO, Trace_ELBO, TraceMeanField_ELBO or TraceGraph_ELBO, got"
        f" {type(elbo).__name__}, whose expectation is not that of log q - log p"
    )


def _expected_log_density(factor: AffineFactor) -> Tensor:
    """E log N(v; mu, Sigma), with the site's scale and mask, summed over the batch."""
    residual = factor.value - factor.loc
    if factor.scale.dim() > factor.loc.dim() - 1:
        white = torch.linalg.solve_triangular(factor.scale, residual.unsqueeze(-1), upper=False).squeeze(-1)
        log_scale = factor.scale.diagonal(dim1=-2, dim2=-1).log()
    else:
        white, log_scale = residual / factor.scale, factor.scale.log()
    # What was drawn from this factor has white noise for residual. Saying so, as an analytic KL does, keeps the unused
    # triangle of an unconstrained Cholesky factor out of the gradient.
    square = torch.ones_like(white[0]) if factor.drawn else white.square().sum(0)
    density = -0.5 * square - log_scale - 0.5 * math.log(2 * math.pi)
    if factor.event_dim:
        density = density.sum(tuple(range(-factor.event_dim, 0)))
    message = factor.message
    if isinstance(message["fn"], MaskedDistribution):
        density = scale_and_mask(density, mask=message["fn"]._mask)
    return scale_and_mask(density, message["scale"], message["mask"]).sum()
