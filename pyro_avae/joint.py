r"""Joints: how the guide ties :math:`z'` to the :math:`z` that it drew, given an encoding of each."""

from collections.abc import Callable, Mapping
from typing import Protocol

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling import Coupling
from pyro_avae.errors import InputError

__all__ = ["JOINTS", "FactorisedJoint", "Joint", "OptimalJoint"]


class Joint(Protocol):
    """Makes the guide's distribution of z' of one link."""

    def __call__(
        self, z: Tensor, posterior: TorchDistribution, posterior_aux: TorchDistribution, coupling: Coupling
    ) -> TorchDistribution:
        r"""Return :math:`q(z'|z, x, \tilde x)`, whose mean over z is to be :math:`q(z'|\tilde x)`.

        Args:
            z: the draw from ``posterior``, ``(..., B, L)``.
            posterior: :math:`q(z|x)`.
            posterior_aux: :math:`q(z'|\tilde x)`.
            coupling: the target's.
        """
        ...


class FactorisedJoint:
    r"""The joint of the AVAE: :math:`q(z'|\tilde x)`, whatever z was.

    With a view that does not depend on z (:class:`~pyro_avae.worst_case.WorstCase`) the two encodings are independent:
    the factorised form of the smooth encoder, whose term is in expectation over z, per dimension,

    .. math:: -\frac{s_b + \rho^2 s_a + (\mu_b - \rho\mu_a)^2}{2(1-\rho^2)} - \tfrac12\log 2\pi(1-\rho^2)
              + \tfrac12 \log 2\pi e\, s_b .
    """

    def __call__(
        self, z: Tensor, posterior: TorchDistribution, posterior_aux: TorchDistribution, coupling: Coupling
    ) -> TorchDistribution:
        return posterior_aux


class OptimalJoint:
    r"""The Gaussian joint with marginals :math:`q(z|x)`, :math:`q(z'|\tilde x)` that makes the bound largest.

    With variances :math:`s_a, s_b`, the coupling's interaction :math:`\gamma` (the coefficient of :math:`z z'` in
    :math:`\log p(z,z')`: :math:`\rho/(1-\rho^2)` for p_rho, :math:`\gamma` for the pairwise prior) and
    :math:`u = \sqrt{1 + 4\gamma^2 s_a s_b}`, the best covariance is :math:`\psi = (u-1)/(2\gamma)` per dimension, so

    .. math:: z'|z \sim \mathcal N\Big(\mu_b + \frac{2\gamma s_b}{1+u}(z-\mu_a),\; \frac{2 s_b}{1+u}\Big).

    With the pairwise prior this is the entropy-regularised optimal transport of *Smooth Encoders*; with p_rho the same
    with the prior preserved. Its bound is never below that of :class:`FactorisedJoint`. Chains use it link by link.

    Raises:
        InputError: encodings with a full covariance; a coupling across dimensions.

    Source: Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020; the form with p_rho
        is derived.
    """

    def __call__(
        self, z: Tensor, posterior: TorchDistribution, posterior_aux: TorchDistribution, coupling: Coupling
    ) -> TorchDistribution:
        loc, scale = _diagonal(posterior)
        loc_aux, scale_aux = _diagonal(posterior_aux)
        interaction = coupling.interaction
        if isinstance(interaction, Tensor):
            interaction = interaction.to(scale.dtype)
        u = torch.sqrt(1 + (2 * interaction * scale * scale_aux).square())
        gain = 2 * interaction * scale_aux.square() / (1 + u)
        return dist.Normal(loc_aux + gain * (z - loc), scale_aux * (2 / (1 + u)).sqrt()).to_event(1)


#: The joints that a guide knows by name; an object of one's own can be passed in their place.
JOINTS: Mapping[str, Callable[[], Joint]] = {"factorised": FactorisedJoint, "optimal": OptimalJoint}


def _diagonal(posterior: TorchDistribution) -> tuple[Tensor, Tensor]:
    base = posterior.base_dist if isinstance(posterior, torch.distributions.Independent) else posterior
    if not isinstance(base, torch.distributions.Normal):
        raise InputError(
            f"joint: the optimal joint needs encodings with a diagonal covariance, scale (B, L), got a"
            f" {type(base).__name__}; use joint='factorised'"
        )
    return base.loc, base.scale
