"""Reading a linear-Gaussian pair of Pyro programs: every site as an affine function of standard normal noise."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.distributions.torch_distribution import MaskedDistribution
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.linear_gaussian.hidden_randomness import no_other_randomness

__all__ = ["AffineFactor", "read_pair"]

Program = Callable[..., Any]
Role = Literal["guide", "model"]

#: How far, in standard deviations, the noise of the checks reaches: what is affine this far is affine for all purposes.
_CHECK_REACH = (1.0, -1.0, 8.0)
_RELATIVE_TOLERANCE = 1e-8
#: Runs allowed for a pair whose plate elements depend on one another; a small batch is enough to verify a bound.
_MOST_RUNS = 2000


@dataclass(frozen=True)
class AffineFactor:
    r"""One Gaussian factor :math:`\mathcal N(v; \mu, \Sigma)` that the bound scores, v and :math:`\mu` affine in noise.

    Attributes:
        name: the site's name.
        role: the program it belongs to.
        value: coefficients of v, ``(1 + K, *batch, *event)``: the constant, then one for each noise coordinate.
        loc: coefficients of :math:`\mu`, likewise.
        scale: standard deviations ``(*batch, *event)`` or Cholesky factors ``(*batch, d, d)``, the same for all noise.
        event_dim: how many dimensions on the right belong to the event.
        message: the site's Pyro message, for its scale and mask.
        drawn: whether v was drawn from this very factor: then the whitened residual is the noise itself.
    """

    name: str
    role: Role
    value: Tensor
    loc: Tensor
    scale: Tensor
    event_dim: int
    message: Any
    drawn: bool


@dataclass(frozen=True)
class _Factor:
    """One factor in one run of the pair, or an auxiliary draw, which is not scored."""

    name: str
    role: Role
    loc: Tensor
    scale: Tensor
    value: Tensor
    event_dim: int
    plates: frozenset[int]
    message: Any
    scored: bool
    drawn: bool = False


@dataclass(frozen=True)
class _Coordinate:
    """One coordinate of a draw's noise; axes in ``kept`` are plates, each element of which has it independently."""

    name: str
    one_hot: Tensor
    kept: frozenset[int]
    event_dim: int

    def amount(self, noise: Mapping[str, Tensor], event_dim: int) -> Tensor:
        """This coordinate of ``noise``, shaped to multiply a tensor with ``event_dim`` event dimensions."""
        along = noise[self.name] * self.one_hot
        if not self.kept:
            return along.sum()
        along = along.sum([axis for axis in range(along.dim()) if axis not in self.kept], keepdim=True)
        plates = along.shape[min(self.kept) : along.dim() - self.event_dim]
        return along.reshape(*plates, *[1] * event_dim)


def read_pair(model: Program, guide: Program, x: Tensor) -> list[AffineFactor]:
    """Run the pair without noise, then once for each noise coordinate, and return every factor as an affine function.

    A coordinate is switched on in all elements of a plate together; where the elements turn out to depend on one
    another, one element at a time. The reading is then held against runs under random noise.

    Raises:
        InputError: a site that is not Gaussian, whose mean is not affine or whose covariance is not constant in the
            latents; randomness outside Pyro sites and :func:`~pyro_avae.auxiliary`. The site is named.
    """
    with no_other_randomness():
        rest = _run(model, guide, x, {})
    try:
        return _read(model, guide, x, rest, plates_together=True)
    except InputError:
        if sum(factor.loc.numel() for factor in rest.values() if factor.drawn) > _MOST_RUNS:
            raise
        return _read(model, guide, x, rest, plates_together=False)


def _read(
    model: Program, guide: Program, x: Tensor, rest: Mapping[str, _Factor], *, plates_together: bool
) -> list[AffineFactor]:
    coordinates = [c for factor in rest.values() for c in _coordinates(factor, plates_together=plates_together)]
    runs = [_run(model, guide, x, {c.name: c.one_hot}) for c in coordinates]
    for run in runs:
        _check_covariances(rest, run)
    for reach in _CHECK_REACH:
        noise = _random_noise(rest, reach)
        with torch.no_grad():
            _check_means(rest, coordinates, runs, _run(model, guide, x, noise), noise)
    return [_affine(factor, [run[key] for run in runs]) for key, factor in rest.items() if factor.scored]


def _affine(rest: _Factor, moved: list[_Factor]) -> AffineFactor:
    return AffineFactor(
        name=rest.name,
        role=rest.role,
        value=torch.stack([rest.value, *(factor.value - rest.value for factor in moved)]),
        loc=torch.stack([rest.loc, *(factor.loc - rest.loc for factor in moved)]),
        scale=rest.scale,
        event_dim=rest.event_dim,
        message=rest.message,
        drawn=rest.drawn,
    )


def _coordinates(factor: _Factor, *, plates_together: bool) -> Iterator[_Coordinate]:
    if not _has_noise(factor):
        return
    shape = factor.loc.shape
    batch_dims = len(shape) - factor.event_dim
    kept = frozenset(a for a in range(batch_dims) if plates_together and a - batch_dims in factor.plates)
    axes: list[Any] = [[slice(None)] if axis in kept else range(size) for axis, size in enumerate(shape)]
    for index in product(*axes):
        one_hot = torch.zeros_like(factor.loc).detach()
        one_hot[index] = 1
        yield _Coordinate(factor.name, one_hot, kept, factor.event_dim)


def _random_noise(rest: Mapping[str, _Factor], reach: float) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        factor.name: reach * torch.randn(factor.loc.shape, generator=generator, dtype=factor.loc.dtype).to(factor.loc)
        for factor in rest.values()
        if _has_noise(factor)
    }


def _has_noise(factor: _Factor) -> bool:
    return factor.drawn and bool(factor.scale.any())


def _check_covariances(rest: Mapping[str, _Factor], run: Mapping[str, _Factor]) -> None:
    for key, factor in rest.items():
        if key not in run:
            raise InputError(
                f"site {factor.name!r}: it is drawn for some latents only; the pair is not linear-Gaussian"
            )
        if not torch.allclose(factor.scale, run[key].scale, rtol=_RELATIVE_TOLERANCE, atol=0):
            raise InputError(
                f"site {factor.name!r}: its covariance depends on the latents, or changes from run to run; the pair is"
                " not linear-Gaussian (where a part estimates while it trains, such as NaturalRho, call .eval() first)"
            )


def _check_means(
    rest: Mapping[str, _Factor],
    coordinates: list[_Coordinate],
    runs: list[dict[str, _Factor]],
    found: Mapping[str, _Factor],
    noise: Mapping[str, Tensor],
) -> None:
    """Hold the affine prediction of every mean against a run under random noise, in program order."""
    _check_covariances(rest, found)
    for key, factor in rest.items():
        prediction, size = factor.loc, 1 + factor.loc.abs().max()
        for coordinate, run in zip(coordinates, runs, strict=True):
            amount = coordinate.amount(noise, factor.event_dim)
            if _broadcast_shape(amount, factor.loc) != factor.loc.shape:
                raise _not_affine(factor)
            step = amount * (run[key].loc - factor.loc)
            prediction, size = prediction + step, size + step.abs().max()
        if not bool(((prediction - found[key].loc).abs() <= _RELATIVE_TOLERANCE * size).all()):
            raise _not_affine(factor)


def _broadcast_shape(a: Tensor, b: Tensor) -> torch.Size | None:
    """None where the two do not fit together: the site lies outside a plate that the noise has elements in."""
    try:
        return torch.broadcast_shapes(a.shape, b.shape)
    except RuntimeError:
        return None


def _not_affine(factor: _Factor) -> InputError:
    return InputError(f"site {factor.name!r}: its mean is not affine in the latents; the pair is not linear-Gaussian")


def _run(model: Program, guide: Program, x: Tensor, noise: Mapping[str, Tensor]) -> dict[str, _Factor]:
    """Run guide and model under given noise; a draw that the noise does not name has none."""
    drawing = _Drawing(noise)
    with drawing:
        guide_trace = poutine.trace(guide).get_trace(x)
    with _NoFreeLatent():
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(x)
    factors = {}
    for factor in drawing.factors:
        # the trace's message, unlike the one seen while drawing, has the scale of every enclosing handler
        factors[f"guide {factor.name}"] = _with_message(factor, guide_trace.nodes.get(factor.name, factor.message))
    for name, site in _scored(guide_trace).items():
        # what the guide observes is scored too, a pyro.factor included, which is refused here by name
        if site["is_observed"]:
            factors[f"guide {name}"] = _factor("guide", site, site["value"])
    for name, site in _scored(model_trace).items():
        factors[f"model {name}"] = _factor("model", site, site["value"])
    return factors


def _scored(trace: Trace) -> dict[str, Any]:
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not _is_subsample(site) and not (site["infer"] or {}).get("_deterministic")
    }


def _factor(role: Role, message: Any, value: Tensor | None, *, scored: bool = True) -> _Factor:
    name, fn = message["name"], message["fn"]
    loc, scale = _gaussian_parameters(name, fn, delta_allowed=not scored)
    return _Factor(
        name=name,
        role=role,
        loc=loc,
        scale=scale,
        value=loc if value is None else value.expand_as(loc),
        event_dim=loc.dim() - len(fn.batch_shape),
        plates=frozenset(frame.dim for frame in message["cond_indep_stack"] if frame.vectorized),
        message=message,
        scored=scored,
    )


def _with_message(factor: _Factor, message: Any) -> _Factor:
    return replace(factor, message=message) if factor.scored else factor


class _Drawing(Messenger):
    """Puts loc + scale @ noise at every latent and auxiliary draw of the guide."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise
        self.factors: list[_Factor] = []

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["value"] is None and not _is_subsample(msg):
            self._draw(msg, scored=True)

    def _pyro_auxiliary(self, msg: Any) -> None:
        self._draw(msg, scored=False)

    def _draw(self, msg: Any, *, scored: bool) -> None:
        at_rest = _factor("guide", msg, None, scored=scored)
        value = at_rest.loc
        if msg["name"] in self.noise:
            value = value + _scaled(at_rest.scale, self.noise[msg["name"]])
        self.factors.append(replace(at_rest, value=value, drawn=True))
        msg["value"], msg["done"] = value, True


class _NoFreeLatent(Messenger):
    """Refuses a latent of the model that the guide does not draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and msg["value"] is None and not _is_subsample(msg):
            raise InputError(f"site {msg['name']!r}: latent in the model, but the guide does not draw it")


def _is_subsample(msg: Any) -> bool:
    return type(msg["fn"]).__name__ == "_Subsample"


def _scaled(scale: Tensor, noise: Tensor) -> Tensor:
    return scale * noise if scale.dim() == noise.dim() else (scale @ noise.unsqueeze(-1)).squeeze(-1)


def _gaussian_parameters(name: str, fn: Any, *, delta_allowed: bool) -> tuple[Tensor, Tensor]:
    """``(loc, scale)`` of a Gaussian under any of Pyro's wrappers; a Delta, if allowed, has scale zero."""
    base = fn
    while isinstance(base, torch.distributions.Independent | MaskedDistribution):
        base = base.base_dist
    if isinstance(base, torch.distributions.Normal):
        return base.loc, base.scale
    if isinstance(base, torch.distributions.MultivariateNormal | torch.distributions.LowRankMultivariateNormal):
        return base.loc, base.scale_tril
    if delta_allowed and type(base).__name__ == "Delta":
        return base.v, torch.zeros_like(base.v)
    raise InputError(f"site {name!r}: expected a Gaussian, got {type(base).__name__}; the pair is not linear-Gaussian")
