r"""How large a change of the image the reconstruction withstands: the margin of r-robustness.

With g the decoder's mean and independent draws :math:`z \sim q(z|x)`, :math:`z' \sim q(z|x + \delta)`, the pair is
r-robust at x to δ if

.. math:: P\bigl(\lVert g(z') - g(z) \rVert_2 \le r\bigr) > \tfrac12,

and its margin at x is the largest R such that it is r-robust to every δ with :math:`\lVert\delta\rVert_2 \le R`
(Camuto, Willetts, Roberts, Holmes & Rainforth 2021, arXiv 2007.07365).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.attacks import check_pgd
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.latent_attack import check_images
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.reconstruction import reconstruct
from pyro_avae.randomness import isolated

__all__ = ["robustness_margin"]

# Values of x that one chunk of decoded draws may hold (64 MiB of float32).
_CHUNK_VALUES = 2**24

# Draws of z' whose damage one gradient step averages.
_STEP_DRAWS = 4

# All steps of one restart together, in units of the radius. A start at right angles to the best direction ends within
# tanh(5) = 0.9999 of it where the damage is quadratic.
_TRAVEL = 5.0


def robustness_margin(
    model: Model,
    guide: Guide,
    x: Tensor,
    *,
    r: float,
    max_radius: float = 6.0,
    steps: int = 30,
    restarts: int = 3,
    num_samples: int = 200,
    bisections: int = 8,
    batch_size: int = 100,
    seed: int = 0,
) -> dict[str, Any]:
    r"""Estimate the margin of r-robustness of each image: the smallest change found that breaks it.

    What is estimated, for each image by itself: at a radius ρ, ``restarts`` random starts of projected gradient ascent
    look for a δ, :math:`\lVert\delta\rVert_2 \le \rho` and x + δ in [0, 1], with the largest damage
    :math:`\mathbb E \lVert g(z') - g(\mu(x)) \rVert^2`. Each δ is judged on ``num_samples`` fresh pairs (z, z'); it
    breaks the image where at most half of them lie within r. Bisection over ρ, from ``max_radius`` down, keeps the
    smallest norm of a δ that broke it.

    That norm is an upper bound of the margin, up to the Monte Carlo error of the probability: a stronger attack can
    find a smaller one, and nothing is certified. An image that nothing broke counts with ``max_radius``, one whose
    posterior noise alone breaks it with 0.

    Args:
        model: p(x|z), through ``decode``.
        guide: q(z|x), through ``encode`` and ``posterior``, whose draws must be differentiable.
        x: images ``(B, *event)`` in [0, 1].
        r: the Euclidean distance of two reconstructions that counts as the same, over all pixels of [0, 1].
        max_radius: the largest L2 norm of δ that is tried.
        steps: gradient steps of a restart.
        restarts: random starts at each radius.
        num_samples: pairs of draws behind each probability.
        bisections: halvings of the interval; the resolution is ``max_radius / 2**bisections``.
        batch_size: images at a time.
        seed: seed of every random number used here; torch's random state is left as it was.

    Returns:
        Plain numbers: ``margins``, one an image; ``margin``, their mean, median, min and max; ``fraction_at_limit``,
        the share that nothing broke, and ``fraction_zero``; ``r``, ``norm``, ``max_radius``, ``attack``, ``num_images``
        and ``seed``.

    Raises:
        InputError: for r or a radius that is not positive and finite, counts below 1, or images outside [0, 1].

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> from pyro_avae.models import VAE, MLPDecoder
        >>> model = VAE(MLPDecoder(2, (1, 4, 4), hidden=[8]), latent_dim=2)
        >>> guide = AmortizedGuide(MLPEncoder((1, 4, 4), 2, hidden=[8]))
        >>> result = robustness_margin(model, guide, torch.rand(3, 1, 4, 4), r=100.0, steps=2, num_samples=10)
        >>> result["margins"], result["fraction_at_limit"]
        ([6.0, 6.0, 6.0], 1.0)

    Source: A. Camuto, M. Willetts, S. Roberts, C. Holmes, T. Rainforth, *Towards a Theoretical Understanding of the
        Robustness of Variational Autoencoders*, AISTATS 2021, definitions 1 and 2.
    """
    for name, value in (("r", r), ("max_radius", max_radius)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name}: expected a finite number above 0, got {value}")
    check_pgd(steps, restarts)
    for name, count in (("num_samples", num_samples), ("bisections", bisections)):
        if count < 1:
            raise InputError(f"{name}: expected at least 1, got {count}")
    check_images("robustness_margin", x, batch_size)
    if getattr(model, "sequential", False):
        raise InputError(
            f"{type(model).__name__}: a decoder of one pixel after another; the margin needs the derivative of what is"
            " decoded, which a sample has not"
        )
    search = _Search(model, guide, r, steps, restarts, num_samples)
    x = x.to(device_of(guide, model))
    with frozen(model, guide), isolated(seed):
        margins = torch.cat([search.margins(part, max_radius, bisections) for part in x.split(batch_size)])
    values = margins.double().cpu()
    return {
        "margin": {
            "mean": float(values.mean()),
            "median": float(values.median()),
            "min": float(values.min()),
            "max": float(values.max()),
        },
        "margins": values.tolist(),
        "fraction_at_limit": float((values >= max_radius).double().mean()),
        "fraction_zero": float((values == 0).double().mean()),
        "r": float(r),
        "norm": "L2",
        "max_radius": float(max_radius),
        "attack": {
            "objective": "expected squared distance from the clean reconstruction",
            "steps": steps,
            "restarts": restarts,
            "bisections": bisections,
            "num_samples": num_samples,
        },
        "num_images": len(values),
        "seed": seed,
    }


@dataclass(frozen=True)
class _Search:
    """The attack and the judgement behind :func:`robustness_margin`."""

    model: Model
    guide: Guide
    r: float
    steps: int
    restarts: int
    num_samples: int

    def margins(self, x: Tensor, max_radius: float, bisections: int) -> Tensor:
        """The estimated margins, ``(B,)``."""
        high = self.smallest_break(x, x.new_full((len(x),), max_radius))
        high[self.probability(x, x) <= 0.5] = 0.0
        active = ((high > 0) & high.isfinite()).nonzero().squeeze(1)
        if len(active) > 0:
            high[active] = self._bisected(x[active], high[active], bisections)
        return high.clamp(max=max_radius)

    def _bisected(self, x: Tensor, high: Tensor, bisections: int) -> Tensor:
        """The smallest norm that broke each image, from one that did."""
        low = torch.zeros_like(high)
        for _ in range(bisections):
            middle = (low + high) / 2
            found = self.smallest_break(x, middle)
            low = torch.where(found.isfinite(), low, middle)
            high = torch.minimum(high, found)
            low = torch.minimum(low, high)
        return high

    def smallest_break(self, x: Tensor, radius: Tensor) -> Tensor:
        """The smallest norm within ``radius`` ``(B,)`` that broke each image, over restarts; ∞ where none did."""
        norms = x.new_full((len(x),), torch.inf)
        for _ in range(self.restarts):
            changed = self.attack(x, radius)
            broken = self.probability(x, changed) <= 0.5
            norms = torch.where(broken, torch.minimum(norms, (changed - x).flatten(1).norm(dim=-1)), norms)
        return norms

    def attack(self, x: Tensor, radius: Tensor) -> Tensor:
        """One restart: x + δ with ‖δ‖ ≤ ``radius`` and large damage, by normalised steps that shrink to zero."""
        with torch.no_grad():
            clean = reconstruct(self.model, self.guide, x)
        rows = radius.view(-1, *[1] * (x.dim() - 1))
        change = _directions(torch.randn_like(x)) * rows * torch.rand_like(rows)
        current = _within(x, change, rows)
        for step in range(self.steps):
            current.requires_grad_()
            with torch.enable_grad():
                z = self.guide.posterior(current).rsample((_STEP_DRAWS,))
                damage = (self.model.decode(z) - clean).square().sum()
                gradient = torch.autograd.grad(damage, current)[0]
            length = 2 * _TRAVEL / self.steps * (1 - step / self.steps)
            current = _within(x, current.detach() + length * rows * _directions(gradient) - x, rows)
        return current

    @torch.no_grad()
    def probability(self, x: Tensor, changed: Tensor) -> Tensor:
        """The share of pairs of draws whose reconstructions lie within r, ``(B,)``."""
        before, after = self.guide.posterior(x), self.guide.posterior(changed)
        within = x.new_zeros(len(x))
        for count in _chunks(self.num_samples, max(1, _CHUNK_VALUES // x.numel())):
            distance = self.model.decode(after.sample((count,))) - self.model.decode(before.sample((count,)))
            within += (distance.flatten(2).norm(dim=-1) <= self.r).sum(0)
        return within / self.num_samples


def _chunks(total: int, size: int) -> Iterator[int]:
    """``total`` as a sum of counts of at most ``size``."""
    for start in range(0, total, size):
        yield min(size, total - start)


def _directions(x: Tensor) -> Tensor:
    """Each row at Euclidean length 1; a row of zeros stays."""
    norm = x.flatten(1).norm(dim=-1).clamp(min=torch.finfo(x.dtype).tiny)
    return x / norm.view(-1, *[1] * (x.dim() - 1))


def _within(x: Tensor, change: Tensor, radius: Tensor) -> Tensor:
    """x + change, pulled into the ball, then clipped to [0, 1], which only brings it closer to x."""
    norm = change.flatten(1).norm(dim=-1).view_as(radius)
    scale = torch.where(norm > radius, radius / norm, torch.ones_like(norm))
    return (x + change * scale).clamp(0.0, 1.0)
