r"""Views: how :math:`\tilde x` (``x_aux``) is made from a data point and its encoding."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, Protocol

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.auxiliary_draw import auxiliary
from pyro_avae.errors import InputError

__all__ = ["GRADIENTS", "VIEWS", "DecoderMean", "DecoderSample", "Gradient", "Perturbed", "View"]

log = logging.getLogger(__name__)

Gradient = Literal["through_z", "cut"]
GRADIENTS: tuple[Gradient, ...] = ("through_z", "cut")

#: Families of torch.distributions whose ``mean`` is not a number.
_WITHOUT_MEAN = (torch.distributions.Categorical, torch.distributions.Cauchy, torch.distributions.HalfCauchy)


class View(Protocol):
    """Makes the auxiliary observation of one link of the chain, and records it with :func:`auxiliary`."""

    def __call__(
        self,
        name: str,
        x: Tensor,
        z: Tensor,
        *,
        decode: Callable[[Tensor], TorchDistribution],
        encode: Callable[[Tensor], TorchDistribution],
    ) -> Tensor:
        r"""Return :math:`\tilde x`.

        Args:
            name: the auxiliary site's name.
            x: the data, ``(B, *event)``; in the further links of a chain the view before.
            z: the latent that stands in the coupling, ``(..., B, L)``.
            decode: :math:`z \mapsto p_\theta(\cdot\,|z)` with :math:`\theta` held constant.
            encode: :math:`x \mapsto q_\eta(\cdot\,|x)`.

        Returns:
            ``(..., B, *event)``.
        """
        ...


class _DecoderView(ABC):
    """What the two decoder views share: they decode z, and choose where the gradient stops."""

    def __init__(self, *, gradient: Gradient | None = None) -> None:
        if gradient is not None and gradient not in GRADIENTS:
            allowed = ", ".join(repr(g) for g in GRADIENTS)
            raise InputError(f"gradient: expected None, {allowed}, got {gradient!r}")
        self.gradient = gradient

    def __call__(
        self,
        name: str,
        x: Tensor,
        z: Tensor,
        *,
        decode: Callable[[Tensor], TorchDistribution],
        encode: Callable[[Tensor], TorchDistribution],
    ) -> Tensor:
        decoded = decode(z.detach() if self.gradient == "cut" else z)
        return auxiliary(name, self._drawn_from(name, decoded))

    @abstractmethod
    def _drawn_from(self, name: str, distribution: TorchDistribution) -> TorchDistribution:
        """What x~ at the site is drawn from, given the decoder's distribution."""


class DecoderSample(_DecoderView):
    r"""The view of the AVAE paper: :math:`\tilde x \sim p_\theta(\tilde x|z)`, with :math:`\theta` held constant.

    ``gradient="through_z"`` lets the gradient run :math:`\tilde x \to z \to \eta`; ``"cut"`` stops it at
    :math:`\tilde x`, which is what the authors' code does (google-deepmind/deepmind-research ``avae/vae.py``, line 82).
    ``None`` is ``"through_z"`` where the distribution can be reparametrised, else ``"cut"``: a Bernoulli sample has no
    derivative. The sample is not clipped to [0, 1].

    Raises:
        InputError: ``gradient="through_z"`` was asked for and the likelihood cannot be reparametrised.
    """

    def __init__(self, *, gradient: Gradient | None = None) -> None:
        super().__init__(gradient=gradient)
        self._told = False

    def _drawn_from(self, name: str, distribution: TorchDistribution) -> TorchDistribution:
        if not distribution.has_rsample and self.gradient != "cut":
            self._without_gradient(name, distribution)
        return distribution

    def _without_gradient(self, name: str, distribution: TorchDistribution) -> None:
        family = family_name(distribution)
        if self.gradient == "through_z":
            raise InputError(
                f"gradient='through_z': site {name!r} has a {family} likelihood, which cannot be reparametrised, so no"
                " gradient runs through its sample; use gradient='cut' (or None), or view='mean'"
            )
        if not self._told:
            self._told = True
            log.warning("site %r: samples of %s cannot be reparametrised; gradient='cut' is used", name, family)


class DecoderMean(_DecoderView):
    r"""The view of the authors' code: :math:`\tilde x = \mathbb E[x|z]` under the decoder, without observation noise.

    Cheaper in variance, and not the paper's text: off the decoder's range the encoder stays unconstrained (see
    ``docs/maths.md``, *Mean or sample*).

    Raises:
        InputError: the likelihood has no mean.
    """

    def _drawn_from(self, name: str, distribution: TorchDistribution) -> TorchDistribution:
        mean = distribution_mean(distribution, what=f"view='mean', site {name!r}")
        return dist.Delta(mean, event_dim=distribution.event_dim)


class Perturbed:
    r"""A given perturbation as view: :math:`\tilde x = x + \delta`.

    On a linear-Gaussian pair it stands in for :class:`~pyro_avae.worst_case.WorstCase`, whose search is no program
    that :func:`~pyro_avae.linear_gaussian.exact_bound` could read.

    Args:
        delta: broadcast against x.
    """

    #: A guide that has no data cannot use it.
    needs_data = True

    def __init__(self, delta: Tensor) -> None:
        self.delta = delta

    def __call__(
        self,
        name: str,
        x: Tensor,
        z: Tensor,
        *,
        decode: Callable[[Tensor], TorchDistribution],
        encode: Callable[[Tensor], TorchDistribution],
    ) -> Tensor:
        event_dim = x.dim() - len(encode(x).batch_shape)
        return auxiliary(name, dist.Delta(x + self.delta.to(x), event_dim=event_dim))


#: The views a guide knows by name; an object of one's own can be passed in their place.
VIEWS: dict[str, Callable[..., View]] = {"sample": DecoderSample, "mean": DecoderMean}


def family_name(distribution: TorchDistribution) -> str:
    """The name of the innermost family, e.g. ``Bernoulli`` for an ``Independent`` of it."""
    while isinstance(distribution, torch.distributions.Independent):
        distribution = distribution.base_dist
    return type(distribution).__name__


def distribution_mean(distribution: TorchDistribution, *, what: str) -> Tensor:
    """The mean, or an :class:`InputError` that begins with ``what`` where the family has none."""
    base = distribution
    while isinstance(base, torch.distributions.Independent):
        base = base.base_dist
    try:
        if isinstance(base, _WITHOUT_MEAN):
            raise NotImplementedError
        mean: Tensor = distribution.mean
    except NotImplementedError:
        raise InputError(f"{what}: a {type(base).__name__} likelihood has no mean; use view='sample'") from None
    return mean
