"""Hamiltonian dynamics for a guide: leapfrog steps on the target's own log density."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import Message
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.parameters import register_parameters
from pyro_avae.proposal import Proposal
from pyro_avae.sites import Z
from pyro_avae.statistics import untouched_statistics

__all__ = ["TEMPERINGS", "Hamiltonian", "Tempering", "leapfrog"]

Tempering = Literal["fixed", "free", "none"]
TEMPERINGS: tuple[Tempering, ...] = ("fixed", "free", "none")

#: The guide's own sites: where the dynamics begin, and what their end adds to the bound.
START, MOMENTUM, END = "z_start", "momentum", "momentum_end"

_LARGEST_STEP = 0.5


def leapfrog(z: Tensor, momentum: Tensor, gradient: Callable[[Tensor], Tensor], step: Tensor) -> tuple[Tensor, Tensor]:
    r"""One leapfrog step of size :math:`\epsilon` (per dimension): volume-preserving and reversible.

    ::

        momentum -= step/2 gradient(z);  z += step momentum;  momentum -= step/2 gradient(z)

    Args:
        z: ``(..., L)``.
        momentum: ``(..., L)``.
        gradient: of the potential, :math:`z \mapsto \nabla U(z)`.
        step: ``(L,)`` or 0-d.

    Example:
        >>> z, momentum = leapfrog(torch.ones(1), torch.zeros(1), lambda z: z, torch.tensor(0.1))
        >>> back, _ = leapfrog(z, -momentum, lambda z: z, torch.tensor(0.1))
        >>> torch.allclose(back, torch.ones(1))
        True
    """
    momentum = momentum - step / 2 * gradient(z)
    z = z + step * momentum
    return z, momentum - step / 2 * gradient(z)


class Hamiltonian(nn.Module):
    r"""Moves the guide's z by K tempered leapfrog steps on :math:`U(z) = -\log p(x, z)`, taken from the Pyro model.

    ::

        z_start  ~ q(z | x)                     # the guide's Gaussian
        momentum ~ N(0, I)                      # divided by sqrt(beta_0) at the start
        K times: a leapfrog step, then momentum *= alpha_k,  prod alpha_k = sqrt(beta_0)
        z        = where it ends                # site "z"

    Pass it to a guide as ``dynamics``. With :math:`\rho_K` the last momentum the bound is

    .. math:: \mathbb E \log p(x, z_K) + \log \mathcal N(\rho_K; 0, I) - \log q(z_0|x) - \log \mathcal N(\gamma; 0, I),

    as the volume :math:`\beta_0^{L/2}` of the tempered flow cancels with that of the initial momentum's density. It is
    a lower bound of :math:`\log p(x)` for every step size and tempering. Sites ``z_start`` and ``momentum`` are the
    guide's alone; latents of the model other than z are integrated out of U, so that the z_aux of an extended target
    moves nothing and is moved by nothing: it is encoded from x_aux as ever, its KL given z analytic. Gradients flow
    through :math:`\nabla U`: a step runs the decoder 2K further times, forward and backward. Passes for U update no
    running statistics.

    ``encode`` and ``posterior`` of the guide are those of q(z|x), where the dynamics begin; importance sampling draws
    from :meth:`proposal`.

    Args:
        model: the target, a Pyro model that is a module. Used, not registered.
        latent_dim: L.
        steps: K.
        tempering: ``"fixed"``: :math:`1/\sqrt{\beta_k} = (1 - 1/\sqrt{\beta_0}) k^2/K^2 + 1/\sqrt{\beta_0}` with
            :math:`\beta_0` learned; ``"free"``: every :math:`\alpha_k` in (0, 1) learned; ``"none"``: 1.
        step_size: what every dimension's learned step begins with, in (0, 0.5).
        vary: whether each of the K steps has sizes of its own.

    Raises:
        InputError: options out of range; a model that is no module; on use, a z of another size, or a model with a
            latent beside z that what is observed may depend on.

    Example:
        >>> from pyro_avae import AVAE_ELBO
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> model = VAE(nn.Linear(2, 5), latent_dim=2)
        >>> guide = AmortizedGuide(LinearEncoder(5, 2), dynamics=Hamiltonian(model, latent_dim=2, steps=3))
        >>> AVAE_ELBO()(model, guide)(torch.zeros(4, 5)).shape
        torch.Size([])

        In a guide of one's own it takes the place of the statement that draws z; the plate is handed over, not entered:

        >>> class Guide(nn.Module):
        ...     def __init__(self, model):
        ...         super().__init__()
        ...         self.encoder = LinearEncoder(5, 2)
        ...         self.dynamics = Hamiltonian(model, latent_dim=2)
        ...
        ...     def forward(self, x):
        ...         q = dist.Normal(*self.encoder(x)).to_event(1)
        ...         return self.dynamics(x, q, pyro.plate("data", len(x)))
        >>> AVAE_ELBO()(model, Guide(model))(torch.zeros(4, 5)).shape
        torch.Size([])

    Source: Caterini, Doucet, Sejdinovic, *Hamiltonian Variational Auto-Encoder*, NeurIPS 2018 (arXiv 1805.11328),
        algorithm 1; anthonycaterini/hvae-nips.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        latent_dim: int,
        steps: int = 5,
        tempering: Tempering = "fixed",
        step_size: float = 0.2,
        vary: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise InputError(f"steps: expected an integer of at least 1, got {steps!r}")
        if tempering not in TEMPERINGS:
            raise InputError(f"tempering: expected one of {', '.join(TEMPERINGS)}, got {tempering!r}")
        if not 0 < step_size < _LARGEST_STEP:
            raise InputError(f"step_size: expected a number in (0, {_LARGEST_STEP}), got {step_size!r}")
        self.steps, self.tempering = steps, tempering
        self._target = (model,)  # in a tuple, so that nn.Module does not register it a second time
        shape = (steps if vary else 1, latent_dim)
        self.raw_step = nn.Parameter(torch.full(shape, _logit(step_size / _LARGEST_STEP)))
        if tempering == "fixed":
            self.raw_temperature = nn.Parameter(torch.tensor(_logit(1 / 1.5)))
        elif tempering == "free":
            self.raw_temperature = nn.Parameter(torch.full((steps,), _logit(0.9)))

    @property
    def model(self) -> nn.Module:
        """The target."""
        return self._target[0]

    @property
    def step_sizes(self) -> Tensor:
        """``(K, L)``."""
        return (_LARGEST_STEP * self.raw_step.sigmoid()).expand(self.steps, -1)

    @property
    def factors(self) -> Tensor:
        r"""The :math:`\alpha_k`, ``(K,)``; their product is :math:`\sqrt{\beta_0}`."""
        if self.tempering == "none":
            return self.raw_step.new_ones(self.steps)
        if self.tempering == "free":
            return self.raw_temperature.sigmoid()
        start = self.raw_temperature.sigmoid().rsqrt()
        part = torch.arange(self.steps + 1, dtype=start.dtype, device=start.device) / self.steps
        roots = (1 - start) * part**2 + start  # 1 / sqrt(beta_k)
        return roots[1:] / roots[:-1]

    def forward(self, x: Tensor, posterior: TorchDistribution, plate: Any) -> Tensor:
        """The sites of the guide, in the plate: begin, move, end.

        Args:
            x: the data.
            posterior: where z begins.
            plate: that of the data.
        """
        register_parameters(self.model)
        if posterior.event_shape != self.raw_step.shape[-1:]:
            raise InputError(
                f"latent_dim: expected {tuple(posterior.event_shape)}, the shape of the guide's z, got"
                f" {self.raw_step.shape[-1]}"
            )
        alone: Any = {"is_auxiliary": True}
        with plate:
            z: Tensor = pyro.sample(START, posterior, infer=alone)
            standard = dist.Normal(torch.zeros_like(z), 1.0).to_event(1)
            momentum = pyro.sample(MOMENTUM, standard, infer=alone)
        # Outside the plate: the model has its own.
        z, momentum = self.move(x, z, momentum)
        with plate:
            # In a guide a factor counts with minus: this adds the end's density to the bound.
            pyro.factor(END, -standard.log_prob(momentum), has_rsample=True)
            moved: Tensor = pyro.sample(Z, dist.Delta(z, event_dim=1))
        return moved

    def proposal(self, x: Tensor, posterior: TorchDistribution) -> Proposal:
        r"""Draws of :math:`z_K`, as the sites make them.

        The cost of a draw is :math:`\log q(z_0|x) + \log \mathcal N(\gamma; 0, I) - \log \mathcal N(\rho_K; 0, I)`: the
        flow keeps the volume, and whatever its steps the weights are unbiased for p(x). They are held constant; a draw
        takes 2K passes of the decoder, forward and backward.

        Args:
            x: ``(B, *event)``.
            posterior: where z begins.
        """
        return partial(self._propose, x, posterior)

    def _propose(self, x: Tensor, posterior: TorchDistribution, num_samples: int) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            start = posterior.sample((num_samples,))
            standard = dist.Normal(torch.zeros_like(start), 1.0).to_event(1)
            first = standard.sample()
            z, last = self.move(x, start, first)
            return z, posterior.log_prob(start) + standard.log_prob(first) - standard.log_prob(last)

    def move(self, x: Tensor, z: Tensor, momentum: Tensor) -> tuple[Tensor, Tensor]:
        r"""From z and a standard momentum :math:`\gamma` to :math:`z_K` and :math:`\rho_K`."""
        factors, steps = self.factors, self.step_sizes
        momentum = momentum / factors.prod()
        for step, factor in zip(steps, factors, strict=True):
            z, momentum = leapfrog(z, momentum, lambda at: self.gradient(x, at), step)
            momentum = factor * momentum
        return z, momentum

    def gradient(self, x: Tensor, z: Tensor) -> Tensor:
        r""":math:`\nabla U(z) = -\nabla_z \log p(x, z)`, row by row."""
        wanted = torch.is_grad_enabled()
        with torch.enable_grad(), untouched_statistics([self.model], use="running"):
            at = z if z.requires_grad else z.detach().requires_grad_()
            (found,) = torch.autograd.grad(-self.log_density(x, at), at, create_graph=wanted)
        return found if wanted else found.detach()

    def log_density(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x, z), summed over rows."""
        with poutine.block(), poutine.trace() as tracer, _OthersAtRest(), poutine.condition(data={Z: z}):
            self.model(x)
        sites: list[Any] = [site for site in tracer.trace.nodes.values() if site["type"] == "sample"]
        kept = [s for s in sites if s["is_observed"] and not (s["infer"] or {}).get("_deterministic")]
        _check_nothing_depends_on_others(sites, kept)
        return torch.stack([_log_prob(site).sum() for site in kept]).sum()


def _log_prob(site: Any) -> Tensor:
    found: Tensor = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return scale_and_mask(found, site["scale"], site["mask"])


def _check_nothing_depends_on_others(sites: list[Any], kept: list[Any]) -> None:
    """Refuse a latent before an observed site: what is observed might depend on it, and is then no function of z."""
    names, last = [site["name"] for site in sites], kept[-1]["name"]
    others = [s for s in sites[: names.index(last)] if s not in kept and not _is_plate(s)]
    others = [site for site in others if not (site["infer"] or {}).get("_deterministic")]
    if others:
        raise InputError(
            f"site {others[0]['name']!r}: a latent beside {Z!r} and before {last!r}, which may depend on it; the"
            f" dynamics move {Z!r} alone"
        )


def _is_plate(site: Any) -> bool:
    return type(site["fn"]).__name__ == "_Subsample"


class _OthersAtRest(Messenger):
    """Latents other than z are not drawn: integrated out, they change nothing."""

    def _pyro_sample(self, msg: Message[..., Any]) -> None:
        if msg["is_observed"] or msg["done"] or msg["name"] == Z or _is_plate(msg):
            return
        fn: Any = msg["fn"]
        msg["value"] = _at_rest(fn)
        msg["done"] = True


def _at_rest(fn: Any) -> Tensor:
    """Any value would do: it only has to be where the others are."""
    try:
        mean: Tensor = fn.mean
    except NotImplementedError:
        return torch.zeros(fn.shape())
    return mean


def _logit(p: float) -> float:
    return math.log(p / (1 - p))
