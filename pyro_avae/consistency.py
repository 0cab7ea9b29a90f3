"""Consistency regularisation: an encoder that answers an image and a changed one alike."""

from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from pyro.poutine import Trace
from torch import Tensor

from pyro_avae.divergence import analytic_kl
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.penalties import Penalty
from pyro_avae.sites import Z
from pyro_avae.tensor_elbo import TensorELBO
from pyro_avae.transformations import Transformation

__all__ = ["CR_ELBO", "CR_IWAE", "PairedKL"]

#: The term of the regulariser.
CONSISTENCY = "consistency"


class PairedKL:
    r"""The divergence between the posteriors of a batch's halves: x, and behind it the changed images x~.

    .. math:: \lambda \sum_b \mathrm{KL}(q(z|\tilde x_b)\,\|\,q(z|x_b)).

    The changed image comes first; gradients run through both encodings.

    Args:
        weight: lambda, at least 0.
        site: the latent site.

    Raises:
        InputError: a negative weight; on use, a guide without the site, or whose posterior is not Gaussian.
    """

    def __init__(self, weight: float, *, site: str = Z) -> None:
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise InputError(f"weight: expected a finite number of at least 0, got {weight!r}")
        self.weight, self.site = float(weight), site

    def __call__(self, model: Any, guide_trace: Trace, /) -> Tensor:
        """The penalty of a trace on both halves."""
        if self.site not in guide_trace:
            raise InputError(f"consistency: the guide has no site {self.site!r}")
        node: Any = guide_trace.nodes[self.site]
        original, changed = _halves(node["fn"])
        kl = analytic_kl(changed, original)
        if kl is None:
            raise InputError(f"consistency: no KL in closed form between two {type(original).__name__}")
        return self.weight * kl.sum()


def _halves(q: TorchDistribution) -> tuple[TorchDistribution, TorchDistribution]:
    base = q.base_dist if isinstance(q, torch.distributions.Independent) else q
    half = q.batch_shape[-1] // 2
    if isinstance(base, dist.MultivariateNormal):
        parts = [(base.loc[..., part, :], base.scale_tril[..., part, :, :]) for part in _parts(half)]
        first, second = (dist.MultivariateNormal(loc, scale_tril=factor) for loc, factor in parts)
    elif isinstance(base, dist.Normal):
        parts = [(base.loc[..., part, :], base.scale[..., part, :]) for part in _parts(half)]
        first, second = (dist.Normal(loc, scale).to_event(1) for loc, scale in parts)
    else:
        raise InputError(f"consistency: expected a Gaussian posterior, got {type(base).__name__}")
    return first, second


def _parts(half: int) -> tuple[slice, slice]:
    return slice(None, half), slice(half, None)


def _with_changed(x: Tensor, transformation: Transformation) -> Tensor:
    """x, and behind it x~."""
    changed = transformation(x)
    if not isinstance(changed, Tensor) or changed.shape != x.shape:
        got = tuple(changed.shape) if isinstance(changed, Tensor) else type(changed).__name__
        raise InputError(f"transformation: expected it to return the shape that it gets, {tuple(x.shape)}, got {got}")
    return torch.cat([x, changed])


class _OnBoth(TensorELBO):
    """What makes of a bound that of x and a changed x~, less the divergence between their posteriors."""

    def __init__(
        self,
        *,
        transformation: Transformation,
        weight: float,
        penalties: Mapping[str, Penalty] | None = None,
        **options: Any,
    ) -> None:
        if not callable(transformation):
            raise InputError(f"transformation: expected a function of a batch of images, got {transformation!r}")
        super().__init__(penalties={CONSISTENCY: PairedKL(weight), **(penalties or {})}, **options)
        self.transformation = transformation

    def evaluate(
        self, model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """Run the pair on x and x~ and return every term of the bound."""
        both = _with_changed(x, self.transformation)
        return super().evaluate(model, guide, both, *args, **kwargs)  # type: ignore[safe-super]


class CR_ELBO(_OnBoth, AVAE_ELBO):
    r"""The ELBO of x and of a changed x~, less the divergence between their posteriors.

    .. math:: \mathcal L_{\mathrm{CR}} = \mathrm{ELBO}(x) + \mathbb E_{t(\tilde x|x)}\bigl[\mathrm{ELBO}(\tilde x)
        - \lambda\,\mathrm{KL}(q(z|\tilde x)\,\|\,q(z|x))\bigr].

    x and x~ pass as one batch of twice the rows, normalisation over the batch included. Terms are sums over both.

    Args:
        transformation: makes x~.
        weight: lambda.
        penalties: further ones.
        options: those of :class:`~pyro_avae.AVAE_ELBO`, e.g. ``weights={"z": 4.0}`` for a beta-VAE.

    Raises:
        InputError: as :class:`PairedKL` and :class:`~pyro_avae.AVAE_ELBO`.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> model, guide = VAE(torch.nn.Linear(2, 5), latent_dim=2), AmortizedGuide(LinearEncoder(5, 2))
        >>> elbo = CR_ELBO(transformation=lambda x: x, weight=1.0)
        >>> terms = elbo.terms(model, guide, torch.rand(3, 5))
        >>> sorted(terms), abs(float(terms["consistency"].detach()))
        (['consistency', 'x', 'z'], 0.0)

    Source: Sinha and Dieng, *Consistency Regularization for Variational Auto-Encoders*, NeurIPS 2021
        (arXiv 2105.14859). Not its code, which takes the log variance for a standard deviation.
    """


class CR_IWAE(_OnBoth, IWAE_ELBO):
    """:class:`CR_ELBO` with the importance-weighted bound in place of the ELBO.

    Args:
        transformation: makes x~.
        weight: lambda.
        penalties: further ones.
        options: those of :class:`~pyro_avae.IWAE_ELBO`.

    Raises:
        InputError: as :class:`PairedKL` and :class:`~pyro_avae.IWAE_ELBO`.
    """
