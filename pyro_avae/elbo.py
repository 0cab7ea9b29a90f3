"""The evidence lower bound on extended targets, as a Pyro ``ELBO`` that stays in tensors."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor

from pyro_avae.auxiliary_draw import AUXILIARY
from pyro_avae.divergence import analytic_kl
from pyro_avae.errors import InputError
from pyro_avae.penalties import Penalty
from pyro_avae.tensor_elbo import TensorELBO, scored

__all__ = ["AVAE_ELBO", "BoundTerms"]


class BoundTerms(NamedTuple):
    """The bound, site by site; every entry a 0-d tensor, in nats, summed over the batch.

    Attributes:
        sites: one term per site; they add up to the bound, which is minus the loss.
        entropy: the entropies of the auxiliary draws, by site name, empty unless ``with_entropy`` was asked for. The
            bound leaves them out: they are constant while the decoder is held constant, but they do change during
            training when the observation variance is learned.
    """

    sites: dict[str, Tensor]
    entropy: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """Minus the sum of the terms."""
        return -_total(self.sites.values())


class AVAE_ELBO(TensorELBO):
    r"""Evidence lower bound with analytic KL terms, for plain and for extended targets.

    On the pair :class:`~pyro_avae.models.ExtendedVAE`, :class:`~pyro_avae.guides.AVAEGuide` the loss is minus

    .. math::
        \mathcal B_{\mathrm{AVAE}} = \mathbb E_{q(z|x)} \log p(x|z) - \mathrm{KL}(q(z|x)\,\|\,p(z))
            - \mathbb E_{q(z|x) p_\theta(\tilde x|z)} \mathrm{KL}(q(z'|\tilde x)\,\|\,\mathcal N(\rho z, (1-\rho^2)I)),

    one sample of z and x~ per particle, the z of the coupling being the z that made x~ (Cemgil et al. 2020, the bound
    :math:`\mathcal B_{\mathrm{AVAE}}`; the constant :math:`u(\tilde x) = 1` and the entropy of
    :math:`p_\theta(\tilde x|z)`, constant while :math:`\theta` is held constant, are left out). On a plain pair it is
    the usual ELBO. It knows no site names: any pair of Pyro programs with reparametrised guide sites will do.

    Like every Pyro ELBO the loss is **summed over the batch**, in nats, with every normalising constant. KL terms are
    analytic where a closed form exists and using it is unbiased: no latent that the guide draws after a site may come
    before that site in the model. Elsewhere, log q - log p at the sample. Nothing on the way calls ``.item()``.

    Args:
        num_particles: samples of the guide averaged in one loss.
        max_plate_nesting: how many plates may enclose a site; the pairs of this library use one.
        vectorize_particles: draw the particles side by side in one run instead of one after another.
        weights: factors on the terms of sites, e.g. ``{"z": 4.0}`` for a beta-VAE; other sites have 1. With weights
            other than 1 the loss is in general no bound.
        free_bits: nats per image that the KL of a site may cost nothing, e.g. ``{"z": 7.84}``: of the KL, averaged over
            the batch, the part above counts, and the term is minus the larger of the two. Each particle, and each
            of several devices, has its own batch. Still a lower bound.
        kl_weight: a further factor on the terms of all latent sites, and on penalties. Given as a 0-d tensor it can be
            changed during training (``kl_weight.fill_(0.5)``) where nothing waits for the device: a warm-up, see
            :func:`~pyro_avae.training.fit`.
        penalties: by the name of their term, what is subtracted from the bound, e.g.
            :class:`~pyro_avae.penalties.JacobianL1`.
        with_entropy: have :meth:`evaluate` report the entropies that the bound leaves out, for logs.
        retain_graph: passed on to ``backward`` by :meth:`loss_and_grads`.

    Raises:
        InputError: options out of range; on use, a pair whose sites do not fit together (the site is named).

    Example:
        >>> from pyro_avae.models import ExtendedVAE
        >>> from pyro_avae.guides import AVAEGuide, LinearEncoder
        >>> _ = torch.manual_seed(0)
        >>> model = ExtendedVAE(torch.nn.Linear(2, 5), latent_dim=2, rho=0.9, obs_variance=0.5)
        >>> guide = AVAEGuide(LinearEncoder(5, 2), model)
        >>> loss = AVAE_ELBO()(model, guide)(torch.zeros(3, 5))
        >>> sorted(AVAE_ELBO().terms(model, guide, torch.zeros(3, 5)))
        ['x', 'z', 'z_aux']
    """

    def __init__(
        self,
        *,
        num_particles: int = 1,
        max_plate_nesting: int | float = 1,
        vectorize_particles: bool = False,
        weights: Mapping[str, float] | None = None,
        free_bits: Mapping[str, float] | None = None,
        kl_weight: float | Tensor = 1.0,
        with_entropy: bool = False,
        penalties: Mapping[str, Penalty] | None = None,
        retain_graph: bool | None = None,
    ) -> None:
        for site, weight in (weights or {}).items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                raise InputError(f"weights: expected finite numbers of at least 0, got {weight!r} for site {site!r}")
        super().__init__(
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
            penalties=penalties,
            retain_graph=retain_graph,
        )
        for site, bits in (free_bits or {}).items():
            if isinstance(bits, bool) or not isinstance(bits, int | float) or not 0 <= bits < math.inf:
                raise InputError(f"free_bits: expected finite numbers of at least 0, got {bits!r} for site {site!r}")
        self.weights = dict(weights or {})
        self.free_bits = dict(free_bits or {})
        self.kl_weight = kl_weight
        self.with_entropy = with_entropy

    def evaluate(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> BoundTerms:
        """Run the pair and return every term of the bound, averaged over particles."""
        sites: dict[str, Tensor] = {}
        entropy: dict[str, Tensor] = {}
        traces = self._get_traces(model, guide, args, kwargs)  # type: ignore[no-untyped-call]
        for model_trace, guide_trace in traces:
            _accumulate(sites, self._terms(model_trace, guide_trace))
            penalties = {n: _weighted(t, self.kl_weight) for n, t in self._penalties(model, guide_trace).items()}
            _accumulate(sites, penalties)
            if self.with_entropy:
                _accumulate(entropy, _auxiliary_entropies(guide_trace))
        for option, named in (("weights", self.weights), ("free_bits", self.free_bits)):
            unknown = named.keys() - sites.keys()
            if unknown:
                raise InputError(f"{option}: no term {sorted(unknown)} in this bound, its terms are {sorted(sites)}")
        if self.num_particles > 1:
            sites = {name: term / self.num_particles for name, term in sites.items()}
            entropy = {name: term / self.num_particles for name, term in entropy.items()}
        return BoundTerms(sites, entropy)

    def _terms(self, model_trace: Trace, guide_trace: Trace) -> dict[str, Tensor]:
        modelled, drawn = scored(model_trace), _latent(guide_trace)
        terms = {}
        for name, site in modelled.items():
            if site["is_observed"]:
                terms[name] = _log_prob(site)
            else:
                analytic = _analytic_is_unbiased(name, modelled, drawn)
                term = _minus_kl(drawn[name], site, analytic=analytic)
                if name in self.free_bits:
                    term = term.clamp(max=-self.free_bits[name] * _rows(drawn[name]))
                terms[name] = _weighted(term, self.kl_weight)
        for name, site in scored(guide_trace).items():
            # A site of the guide alone (the base noise of a flow, a pyro.factor): its density counts, as in stock Pyro.
            if name not in modelled:
                terms[name] = _weighted(-_log_prob(site), self.kl_weight)
        return {name: _weighted(term, self.weights.get(name, 1.0)) for name, term in terms.items()}


def _latent(guide_trace: Trace) -> dict[str, Any]:
    found = scored(guide_trace)
    for name, site in found.items():
        # A pyro.factor counts as observed, and says of itself whether it may be differentiated.
        if not site["fn"].has_rsample and (not site["is_observed"] or isinstance(site["fn"], dist.Unit)):
            raise InputError(
                f"site {name!r}: the guide's {type(site['fn']).__name__} cannot be reparametrised, and AVAE_ELBO has no"
                " score-function term; use pyro.infer.TraceGraph_ELBO for such a pair"
            )
    return {name: site for name, site in found.items() if not site["is_observed"]}


def _analytic_is_unbiased(name: str, modelled: Mapping[str, Any], drawn: Mapping[str, Any]) -> bool:
    """Whether KL(q||p) at this site may replace log q - log p at the sample.

    It may not if p depends, in the model, on a latent that the guide draws from this site's own sample. Program order
    decides: it can only err towards sampling.
    """
    before_in_model = list(modelled)[: list(modelled).index(name)]
    after_in_guide = list(drawn)[list(drawn).index(name) + 1 :]
    return not set(before_in_model) & set(after_in_guide)


def _minus_kl(guide_site: Any, model_site: Any, *, analytic: bool) -> Tensor:
    _check_same_scale(guide_site, model_site)
    if analytic and guide_site["mask"] is model_site["mask"]:
        kl = analytic_kl(guide_site["fn"], model_site["fn"])
        if kl is not None:
            return -_sum(scale_and_mask(kl, guide_site["scale"], guide_site["mask"]))
    return _log_prob(model_site) - _log_prob(guide_site)


def _rows(site: Any) -> Any:
    """How many images a site's term sums over, each as often as it is scaled."""
    return site["fn"].batch_shape.numel() * site["scale"]


def _check_same_scale(guide_site: Any, model_site: Any) -> None:
    in_guide, in_model = guide_site["scale"], model_site["scale"]
    if isinstance(in_guide, Tensor) and isinstance(in_model, Tensor):
        # Comparing tensors waits for the device, so only where Pyro validates too.
        differ = is_validation_enabled() and not torch.equal(in_guide, in_model)
    else:
        differ = isinstance(in_guide, Tensor) or isinstance(in_model, Tensor) or in_guide != in_model
    if differ:
        name, told = model_site["name"], ["a tensor" if isinstance(s, Tensor) else s for s in (in_model, in_guide)]
        raise InputError(
            f"site {name!r}: scaled by {told[0]} in the model and by {told[1]} in the guide; wrap both in the same"
            " poutine.scale, or use AVAE_ELBO(weights=...)"
        )


def _log_prob(site: Any) -> Tensor:
    log_prob = site["fn"].log_prob(site["value"], *site["args"], **site["kwargs"])
    return _sum(scale_and_mask(log_prob, site["scale"], site["mask"]))


def _auxiliary_entropies(guide_trace: Trace) -> dict[str, Tensor]:
    """Entropies of the auxiliary draws that have a closed form, for logs: they carry no gradient."""
    entropies = {}
    for name, site in guide_trace.nodes.items():
        infer: Mapping[str, Any] = site.get("infer") or {}
        if AUXILIARY in infer:
            try:
                entropies[name] = _sum(infer[AUXILIARY].entropy().detach())
            except NotImplementedError:
                continue
    return entropies


def _weighted(term: Tensor, weight: float | Tensor) -> Tensor:
    return term if isinstance(weight, float) and weight == 1 else weight * term


def _sum(value: Tensor | float) -> Tensor:
    return value.sum() if isinstance(value, Tensor) else torch.tensor(value)


def _total(values: Any) -> Tensor:
    stacked = list(values)
    return torch.stack(stacked).sum() if stacked else torch.zeros(())


def _accumulate(total: dict[str, Tensor], terms: Mapping[str, Tensor]) -> None:
    for name, term in terms.items():
        total[name] = total[name] + term if name in total else term
