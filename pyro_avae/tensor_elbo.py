"""A Pyro ``ELBO`` that stays in tensors, whatever bound it is."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from pyro import poutine
from pyro.infer import ELBO
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from pyro.util import check_model_guide_match, check_site_shape, warn_if_nan
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.penalties import Penalty

__all__ = ["Evaluated", "TensorELBO", "scored"]


class Evaluated(Protocol):
    """A bound and its terms, every entry a 0-d tensor, in nats, summed over the batch."""

    @property
    def sites(self) -> Mapping[str, Tensor]:
        """Terms by name; they add up to the bound."""
        ...

    @property
    def entropy(self) -> Mapping[str, Tensor]:
        """What the bound leaves out and logs show."""
        ...

    @property
    def loss(self) -> Tensor:
        """Minus the bound, with gradients."""
        ...


class TensorELBO(ELBO):
    """What every bound of this library has in common: it is written as :meth:`evaluate`, which calls no ``.item()``.

    Args:
        num_particles: samples of the guide.
        max_plate_nesting: how many plates may enclose a site.
        vectorize_particles: draw them side by side in one run instead of one after another.
        penalties: by the name of their term, what is subtracted from the bound.
        retain_graph: passed on to ``backward`` by :meth:`loss_and_grads`.

    Raises:
        InputError: no positive number of particles; on use, a pair whose sites do not fit together (the site is named).
    """

    def __init__(
        self,
        *,
        num_particles: int,
        max_plate_nesting: int | float,
        vectorize_particles: bool,
        penalties: Mapping[str, Penalty] | None = None,
        retain_graph: bool | None = None,
    ) -> None:
        if isinstance(num_particles, bool) or not isinstance(num_particles, int) or num_particles < 1:
            raise InputError(f"num_particles: expected an integer of at least 1, got {num_particles!r}")
        super().__init__(  # type: ignore[no-untyped-call]
            num_particles=num_particles,
            max_plate_nesting=max_plate_nesting,
            vectorize_particles=vectorize_particles,
            retain_graph=retain_graph,
        )
        self.penalties = dict(penalties or {})

    @abstractmethod
    def evaluate(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Evaluated:
        """Run the pair and return the bound and its terms."""

    def terms(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """The terms by site name, e.g. ``{"x": E log p(x|z), "z": -KL, "z_aux": -KL}``; they sum to minus the loss."""
        return dict(self.evaluate(model, guide, *args, **kwargs).sites)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Minus the bound as a 0-d tensor with gradients; what an ``ELBOModule`` returns."""
        return self.evaluate(model, guide, *args, **kwargs).loss

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Minus the bound as a float, without gradients."""
        with torch.no_grad():
            loss = self.differentiable_loss(model, guide, *args, **kwargs)
        warn_if_nan(loss, "loss")
        return float(loss)

    def loss_and_grads(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """Minus the bound as a float; gradients are added to the parameters' ``.grad``. What ``SVI.step`` calls."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward(retain_graph=self.retain_graph)
        warn_if_nan(loss, "loss")
        return float(loss.detach())

    def _penalties(self, model: Callable[..., Any], guide_trace: Trace) -> dict[str, Tensor]:
        """Minus the penalties at a trace's latents, by name."""
        return {name: -penalty(model, guide_trace) for name, penalty in self.penalties.items()}

    def _get_trace(
        self, model: Callable[..., Any], guide: Callable[..., Any], args: Any, kwargs: Any
    ) -> tuple[Trace, Trace]:
        guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args, **kwargs)
        whole = model_trace, guide_trace
        model_trace, guide_trace = map(prune_subsample_sites, whole)
        _check_they_fit(model_trace, guide_trace)
        if is_validation_enabled():
            check_model_guide_match(*whole, self.max_plate_nesting)
        if is_validation_enabled():
            for trace in (guide_trace, model_trace):
                trace.compute_log_prob()
                for site in scored(trace).values():
                    check_site_shape(site, self.max_plate_nesting)
        return model_trace, guide_trace


def scored(trace: Trace) -> dict[str, Any]:
    """The sites whose density enters the bound, in program order."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not (site["infer"] or {}).get("_deterministic", False)
    }


def _check_they_fit(model_trace: Trace, guide_trace: Trace) -> None:
    guide_sites = scored(guide_trace)
    for name, site in scored(model_trace).items():
        if not site["is_observed"] and (name not in guide_sites or guide_sites[name]["is_observed"]):
            raise InputError(f"site {name!r}: latent in the model, but the guide does not draw it")
    for name, site in guide_sites.items():
        of_the_guide_alone = site["is_observed"] or (site["infer"] or {}).get("is_auxiliary", False)
        if name not in model_trace and not of_the_guide_alone:
            raise InputError(
                f"site {name!r}: drawn by the guide, but the model has no such site;"
                " if the two belong together, mark it infer={'is_auxiliary': True}"
            )
