r"""The encode-decode Markov chain: decode, encode what was decoded, decode that, ...

.. math:: z_t \;\to\; \tilde x_t \sim p(x|z_t) \;\to\; z_{t+1} \sim q(z|\tilde x_t) \;\to\; \dots

For an exact posterior this kernel is reversible and leaves the prior invariant. In probabilistic PCA it is the
autoregression :math:`z_{t+1} = M z_t + \epsilon_t` with :math:`M = I - S = W^\top W (W^\top W + \nu I)^{-1}` and
:math:`\epsilon_t \sim N(0, I - M^2)`. The AVAE asks for :math:`N(\rho z_t, (1-\rho^2) I)`, so the lag-1 correlation of
its chain is to be read next to ρ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.arviz_compat import (
    chains_to_arviz,
    effective_sample_size,
    potential_scale_reduction,
)
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.randomness import isolated

__all__ = ["ChainSummary", "iterated_reconstructions", "lag1_matrix", "run_chain", "summarize_chain"]

_VIEWS = ("sample", "mean")


def run_chain(
    model: Model,
    guide: Guide,
    *,
    start: Tensor | None = None,
    num_chains: int = 4,
    num_draws: int = 1000,
    warmup: int = 0,
    view: str = "sample",
    seed: int = 0,
) -> Any:
    """Run the chain and return its latents as ArviZ ``InferenceData`` (a ``DataTree`` under ArviZ 1.x).

    All chains advance together, one decoder and one encoder pass a step.

    Args:
        model: p(x|z).
        guide: q(z|x).
        start: images ``(B, *event)``: B chains, each from a draw of q(z|x) of its image. None: from the prior N(0, I).
        num_chains: number of chains from the prior; with ``start`` it is the number of images.
        num_draws: latents kept of each chain.
        warmup: steps taken before the first kept one.
        view: ``"sample"`` decodes with the observation noise of p(x|z), ``"mean"`` to its mean.
        seed: seed of the run; torch's own random state is left as it was.

    Returns:
        Group ``posterior`` with the variable ``z (chain, draw, latent)`` and the settings as attributes.

    Raises:
        InputError: for an unknown view or counts below their minimum.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import PPCA
        >>> _ = torch.manual_seed(0)
        >>> model = PPCA(torch.randn(3, 2), obs_variance=0.5)
        >>> guide = AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()))
        >>> dict(run_chain(model, guide, num_chains=4, num_draws=50).posterior.sizes)
        {'chain': 4, 'draw': 50, 'latent': 2}
    """
    _check_view(view)
    for name, value, least in (("num_chains", num_chains, 1), ("num_draws", num_draws, 2), ("warmup", warmup, 0)):
        if value < least:
            raise InputError(f"{name}: expected at least {least}, got {value}")
    draws: list[Tensor] = []
    with torch.no_grad(), frozen(model, guide), isolated(seed):
        z = _first(model, guide, start, num_chains)
        for step in range(warmup + num_draws):
            if step >= warmup:
                draws.append(z.cpu())
            if step + 1 < warmup + num_draws:
                z = guide.posterior(_decoded(model, z, view)).sample()
    attrs = {"view": view, "seed": seed, "warmup": warmup, "start": "prior" if start is None else "images"}
    return chains_to_arviz({"z": torch.stack(draws, 1).numpy()}, {"z": ["latent"]}, attrs)


def _check_view(view: str) -> None:
    if view not in _VIEWS:
        raise InputError(f"view: expected one of {', '.join(_VIEWS)}, got {view!r}")


def _first(model: Model, guide: Guide, start: Tensor | None, num_chains: int) -> Tensor:
    """z_0, ``(chains, L)``."""
    if start is not None:
        if not isinstance(start, Tensor) or start.dim() < 2 or start.layout != torch.strided or start.is_meta:
            raise InputError(f"start: expected a dense tensor of images (B, *event), got {_described(start)}")
        if len(start) == 0 or not bool(start.isfinite().all()):
            raise InputError(f"start: expected at least one image, of finite numbers, got {_described(start)}")
        z: Tensor = guide.posterior(start.to(device_of(guide))).sample()
        return z
    like = next(iter(model.parameters()), torch.zeros(()))
    return torch.randn(num_chains, model.latent_dim, device=like.device, dtype=like.dtype)


def _described(start: object) -> str:
    return f"{start.dtype} of shape {tuple(start.shape)}" if isinstance(start, Tensor) else type(start).__name__


def _decoded(model: Model, z: Tensor, view: str) -> Tensor:
    """x~, a draw or the mean of p(x|z)."""
    if view == "mean":
        return model.decode(z)
    x: Tensor = model.observe(z).sample()
    return x


@dataclass(frozen=True)
class ChainSummary:
    """What a chain says about its pair; arrays are per latent dimension ``(L,)``.

    Attributes:
        lag1: correlation of z_t with z_{t+1}, over all chains and steps.
        lag1_error: its standard error, from the spread between chains; NaN for a single chain.
        lag1_pooled: the same correlation over all dimensions at once.
        rho: the coupling's correlation the pair was trained with, None where there is none.
        mean: mean of z.
        variance: variance of z; 1 where the chain leaves N(0, I) invariant.
        ess: bulk effective sample size.
        r_hat: rank-normalised split R̂.
    """

    lag1: np.ndarray
    lag1_error: np.ndarray
    lag1_pooled: float
    rho: np.ndarray | None
    mean: np.ndarray
    variance: np.ndarray
    ess: np.ndarray
    r_hat: np.ndarray


def summarize_chain(chain: Any, *, rho: float | Sequence[float] | Tensor | None = None) -> ChainSummary:
    """Lag-1 correlation next to ρ, moments, ESS and R̂ of :func:`run_chain`'s result.

    Correlations are centred on the mean over all chains, not on each chain's own: a short chain's own mean follows the
    chain and would bias them down.

    Args:
        chain: what :func:`run_chain` returned.
        rho: the coupling's correlation, a number or one per dimension, for example ``model.coupling.rho``.

    Raises:
        InputError: for fewer than four draws, or a ``rho`` that is neither a number nor one per dimension.
    """
    z = _draws(chain)
    if z.shape[1] < 4:
        raise InputError(f"chain: expected at least 4 draws (R-hat splits each chain), got {z.shape[1]}")
    centred = z - z.mean((0, 1))
    products = (centred[:, :-1] * centred[:, 1:]).sum(1)
    squares = 0.5 * (centred[:, :-1] ** 2 + centred[:, 1:] ** 2).sum(1)
    lag1 = _ratio(products.sum(0), squares.sum(0))
    return ChainSummary(
        lag1=lag1,
        lag1_error=_ratio_error(products, squares, lag1),
        lag1_pooled=float(products.sum() / squares.sum()),
        rho=None if rho is None else _as_vector(rho, z.shape[2]),
        mean=z.mean((0, 1)),
        variance=z.var((0, 1)),
        ess=effective_sample_size(z),
        r_hat=potential_scale_reduction(z),
    )


def lag1_matrix(chain: Any) -> np.ndarray:
    """The matrix M of the best linear prediction z_{t+1} ≈ M z_t (zero mean), ``(L, L)``; I − S for exact PPCA."""
    z = _draws(chain)
    now, after = z[:, :-1].reshape(-1, z.shape[2]), z[:, 1:].reshape(-1, z.shape[2])
    solution: np.ndarray = np.linalg.lstsq(now, after, rcond=None)[0].T
    return solution


def iterated_reconstructions(
    model: Model,
    guide: Guide,
    x: Tensor,
    steps: int,
    *,
    view: str = "mean",
    sample_latent: bool = False,
    seed: int = 0,
) -> Tensor:
    """x, its reconstruction, the reconstruction of that, ...: ``(steps + 1, B, *event)``, the paper's Figure 1.

    Args:
        model: p(x|z).
        guide: q(z|x).
        x: images ``(B, *event)``.
        steps: passes of encoder and decoder.
        view: ``"mean"`` or ``"sample"`` of p(x|z).
        sample_latent: draw z from q(z|x) instead of taking its mean.
        seed: seed of what is drawn; torch's own random state is left as it was.

    Raises:
        InputError: for an unknown view or a negative number of steps.
    """
    _check_view(view)
    if steps < 0:
        raise InputError(f"steps: expected at least 0, got {steps}")
    images = [x.to(device_of(guide))]
    with torch.no_grad(), frozen(model, guide), isolated(seed):
        for _ in range(steps):
            z = guide.posterior(images[-1]).sample() if sample_latent else guide.encode(images[-1])[0]
            images.append(_decoded(model, z, view))
    return torch.stack(images)


def _draws(chain: Any) -> np.ndarray:
    """z as float64, ``(chain, draw, latent)``."""
    return np.asarray(chain["posterior"]["z"].values, dtype=np.float64)


def _as_vector(rho: float | Sequence[float] | Tensor, dim: int) -> np.ndarray:
    values = np.asarray(rho.detach().cpu() if isinstance(rho, Tensor) else rho, dtype=np.float64)
    if values.shape not in ((), (1,), (dim,)):
        raise InputError(f"rho: expected a number or {dim} of them, one per latent dimension, got shape {values.shape}")
    return np.broadcast_to(values, (dim,)).copy()


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Elementwise ratio; NaN where a dimension never moves."""
    quotient: np.ndarray = np.full_like(numerator, np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _ratio_error(products: np.ndarray, squares: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Standard error of Σ products / Σ squares, chains ``(chain, dim)`` being independent (delta method)."""
    chains = len(products)
    if chains < 2:
        return np.full_like(ratio, np.nan)
    residual = products - ratio * squares
    return _ratio(np.sqrt(chains / (chains - 1) * (residual**2).sum(0)), squares.sum(0))
