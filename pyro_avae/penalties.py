"""What may be added to a bound: a penalty on the model at the latents that the guide drew."""

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, Protocol

import torch
from pyro.poutine import Trace
from torch import Tensor, nn
from torch.autograd import forward_ad

from pyro_avae.errors import InputError
from pyro_avae.sites import Z
from pyro_avae.statistics import untouched_statistics

__all__ = ["JacobianL1", "Penalty", "jacobian_l1"]


class Penalty(Protocol):
    """Called with the model and a trace of the guide: a 0-d tensor, summed over batch and particles."""

    def __call__(self, model: Any, guide_trace: Trace, /) -> Tensor:
        """What is added to the loss."""
        ...


class JacobianL1:
    r"""The L1 norm of the decoder's Jacobian, which settles on latent axes that change few pixels each.

    .. math:: \gamma \sum_b \sum_{i \le L} \sum_p \Bigl|\frac{\partial g_p(z_b)}{\partial z_i}\Bigr|,

    g the mean of p(x|z), output function included, z the guide's noisy sample, held constant: the penalty has no
    gradient to the guide. Sums of squares would not see a rotation of the latents, sums of absolute values do. One
    forward-mode product for each latent dimension, all in one batch: the decoder runs on L times as many rows. Layers
    that normalise over the batch use their running statistics in it, as g is a function of one z. Of an autoregressive
    decoder, whose mean has no closed form, g is :math:`\mathbb E[x_p | z, x_{<p}]` at the data.

    Args:
        gamma: the weight, at least 0.
        site: the latent site that is differentiated with respect to.
        step: take the authors' estimator, :math:`(g(z + h e_i) - g(z)) / h` with this h (theirs is 0.001), in place of
            the derivative: L + 1 passes on values alone, about half the work. See :func:`jacobian_l1` on small steps.

    Raises:
        InputError: a negative weight or a step that is not above 0; on use, a model that has no ``decode`` (its mean),
            or a guide without the site.

    Example:
        >>> from pyro_avae import AVAE_ELBO
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> decoder = nn.Linear(2, 5)
        >>> elbo = AVAE_ELBO(penalties={"jacobian_l1": JacobianL1(0.1)})
        >>> terms = elbo.terms(VAE(decoder, latent_dim=2), AmortizedGuide(LinearEncoder(5, 2)), torch.zeros(3, 5))
        >>> torch.allclose(terms["jacobian_l1"], -0.1 * 3 * decoder.weight.abs().sum())
        True

    Source: Rhodes and Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*,
        NeurIPS 2021 (arXiv 2106.02923); travers-rhodes/jlonevae, which differentiates by finite differences.
    """

    def __init__(self, gamma: float, *, site: str = Z, step: float | None = None) -> None:
        if isinstance(gamma, bool) or not isinstance(gamma, int | float) or not 0 <= gamma < float("inf"):
            raise InputError(f"gamma: expected a finite number of at least 0, got {gamma!r}")
        _check_step(step)
        self.gamma, self.site, self.step = float(gamma), site, step

    def __call__(self, model: Any, guide_trace: Trace, /) -> Tensor:
        """The penalty at the guide's sample."""
        decode = _given_data(model, guide_trace) or getattr(model, "decode", None)
        if decode is None:
            raise InputError(
                f"jacobian_l1: expected a model with decode, the mean of p(x|z), got {type(model).__name__}"
            )
        if self.site not in guide_trace:
            raise InputError(f"jacobian_l1: the guide has no site {self.site!r}")
        node: Any = guide_trace.nodes[self.site]
        z: Tensor = node["value"].detach()
        parts = [model] if isinstance(model, nn.Module) else []
        with untouched_statistics(parts, use="running"):
            return self.gamma * jacobian_l1(decode, z, step=self.step)


def _given_data(model: Any, guide_trace: Trace) -> Callable[[Tensor], Tensor] | None:
    """Of a model that draws one pixel after another: z to the means of all pixels, each given those before it."""
    if not getattr(model, "sequential", False):
        return None
    arguments: Any = guide_trace.nodes["_INPUT"]["args"]
    x: Tensor = arguments[0]

    def means(z: Tensor) -> Tensor:
        # As often as z repeats the batch: particles, then directions.
        found: Tensor = model.conditional_mean(z, x.repeat(len(z) // len(x), *[1] * (x.dim() - 1)))
        return found

    return means


def jacobian_l1(function: Callable[[Tensor], Tensor], z: Tensor, *, step: float | None = None) -> Tensor:
    r""":math:`\sum_b \sum_i \sum_p |\partial f_p(z_b) / \partial z_i|`, differentiable in the function's parameters.

    Args:
        function: of ``(N, L)``, row by row.
        z: ``(..., L)``.
        step: h of the forward difference :math:`(f(z + h e_i) - f(z)) / h` that takes the derivative's place. In
            float32 a value of 1 is known to 6e-8, a difference quotient to 1e-7 / h: at h = 0.001 that is well below
            the noise of a training step, at 1e-6 the sum of absolute values is 5 to 50 % too large.

    Raises:
        InputError: a step that is not above 0.

    Example:
        >>> jacobian_l1(lambda z: z @ torch.tensor([[1.0, -2.0], [0.0, 3.0]]), torch.zeros(5, 2))
        tensor(30.)
    """
    rows = z.reshape(-1, z.shape[-1])
    return _derivatives(function, rows) if step is None else _differences(function, rows, step)


def _differences(function: Callable[[Tensor], Tensor], rows: Tensor, step: float) -> Tensor:
    """All of them in one call of the function, as batches of L + 1 times the rows."""
    _check_step(step)
    moves = step * torch.eye(rows.shape[-1], dtype=rows.dtype, device=rows.device)
    values = function(torch.cat([rows[None], rows + moves[:, None]]).flatten(0, 1)).unflatten(0, (-1, len(rows)))
    return (values[1:] - values[:1]).abs().sum() / step


def _derivatives(function: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Of every row along every axis, by forward mode."""
    _load_forward_mode()
    count, size = rows.shape
    # Row b with the i-th unit vector as its tangent, for every i.
    tangents = torch.eye(size, dtype=rows.dtype, device=rows.device).repeat_interleave(count, 0)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(function(forward_ad.make_dual(rows.repeat(size, 1), tangents))).tangent
    return rows.new_zeros(()) if found is None else found.abs().sum()


def _check_step(step: float | None) -> None:
    if step is not None and (
        isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step < float("inf")
    ):
        raise InputError(f"step: expected a finite number above 0, or None for the derivative, got {step!r}")


@cache
def _load_forward_mode() -> None:
    """Load what torch loads at the first use of forward mode, without its warning of its own deprecated code."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=FutureWarning)
        warnings.filterwarnings("ignore", message="`torch.jit.script` is", category=DeprecationWarning)
        importlib.import_module("torch._decomp.decompositions_for_jvp")
