r"""Likelihood Regret: how much better the bound of one image gets when its posterior is fitted to it alone.

.. math:: \mathrm{LR}(x) = \max_\tau \mathcal L(x; \theta, \tau) - \mathcal L(x; \theta, \phi)

with the decoder :math:`\theta` fixed (Xiao, Yan and Amit, *Likelihood Regret*, NeurIPS 2020, arXiv 2003.02977, eq. 5).
With the ELBO and a family that holds p(z|x) it is :math:`\mathrm{KL}(q_\phi(z|x)\,\|\,p(z|x))`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from pyro_avae.errors import InputError
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.ood.bounds import BOUNDS, Bound, elbo
from pyro_avae.evaluation.ood.variants import Adapted, FreePosterior, Variant
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.settings import Progress
from pyro_avae.evaluation.width import parameters_per_value
from pyro_avae.randomness import stream_seed

__all__ = ["Regret", "likelihood_regret"]

# Values that the likelihood's parameters of one pass may take, 16 MiB of float32 on a CPU and 2 GiB elsewhere; and the
# images' own parameters, 256 MiB and 4 GiB: four times that with their gradients and Adam's two moments.
_VALUES = {"cpu": (2**22, 2**26)}
_VALUES_ELSEWHERE = (2**29, 2**30)


class Regret(NamedTuple):
    """What was found for each image, ``(N,)`` in nats on the CPU.

    Attributes:
        regret: ``after - before``, at least 0.
        before: the bound at the guide's posterior.
        after: the best bound that was seen.
        loc: of the posterior that has it, ``(N, L)``.
        scale: ``(N, L)``, or ``(N, L, L)`` a Cholesky factor.
    """

    regret: Tensor
    before: Tensor
    after: Tensor
    loc: Tensor
    scale: Tensor


class _Noise(NamedTuple):
    """What the bound is estimated with, before and after, and in step n."""

    score: Tensor
    step: Callable[[int], Tensor]


def likelihood_regret(
    model: Model,
    guide: Guide,
    x: Tensor,
    *,
    variant: Variant | None = None,
    steps: int = 100,
    lr: float | None = None,
    num_samples: int = 8,
    step_samples: int = 1,
    check_every: int = 10,
    bound: str = "elbo",
    nodes: Tensor | None = None,
    optimizer: Callable[[Sequence[Tensor]], Optimizer] | None = None,
    chunk: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Regret:
    """The regret of each image; larger is stranger.

    Every image is optimised by itself, many at once: steps are Adam's, elementwise, on the ELBO. The bound is looked
    at every ``check_every`` steps, always with the same noise, and the best one counts, so that more steps never give
    less. The result does not depend on which images come together. The pair is in eval mode meanwhile (batch
    normalisation uses its running statistics), and as it was afterwards.

    Args:
        model: p(x|z) p(z), with ``observe``, and ``prior`` unless that is N(0, I); any likelihood.
        guide: q(z|x), with ``encode``; Gaussian.
        x: ``(N, *event)``.
        variant: what is optimised, by default :class:`~pyro_avae.evaluation.ood.FreePosterior`; or
            :class:`~pyro_avae.evaluation.ood.EncoderCopies`.
        steps: of the optimiser, for each image.
        lr: of Adam, by default the variant's.
        num_samples: S of the bound that is reported. A part of the result: see ``bound``.
        step_samples: samples of the bound that a step climbs.
        check_every: steps between two looks at the reported bound; the last step is always looked at.
        bound: what is reported: ``"elbo"``, or ``"importance"`` for the importance-weighted one, whose regret tends to
            0 as S grows, since both sides tend to log p(x).
        nodes: noise ``(S, L)`` to use in every step and every look, in place of draws;
            :func:`~pyro_avae.evaluation.ood.sigma_points` makes the ELBO of a linear-Gaussian pair exact.
        optimizer: makes another optimiser of the parameters; one that mixes their elements mixes images.
        chunk: images at a time, by default what fits a cache or the device's memory.
        seed: of the noise; torch's own random state is left alone.
        progress: called with ``(stage, done, total)``.

    Raises:
        InputError: counts below their minimum, a step size that is not positive, an unknown bound, no images.

    Example:
        >>> from pyro_avae.evaluation.ood import sigma_points
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import PPCA
        >>> _ = torch.manual_seed(0)
        >>> model = PPCA(torch.randn(4, 2), obs_variance=0.3)
        >>> exact = AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()))
        >>> found = likelihood_regret(model, exact, torch.randn(3, 4), nodes=sigma_points(2))
        >>> bool((found.regret < 1e-4).all())
        True
    """
    variant = FreePosterior() if variant is None else variant
    counts = {"num_samples": num_samples, "step_samples": step_samples, "check_every": check_every, "images": len(x)}
    _check({**counts, "chunk": 1 if chunk is None else chunk}, steps, lr, bound)
    size = variant.lr if lr is None else lr
    make = optimizer or (lambda parameters: Adam(parameters, lr=size))
    looks = [step % check_every == 0 or step == steps for step in range(1, steps + 1)]
    device, done, found = device_of(guide, model), 0, []
    with frozen(model, guide):
        first = x[:1].to(device)
        noise = _fixed(nodes, first) if nodes is not None else _drawn(guide, first, num_samples, step_samples, seed)
        decoded, own_values = _VALUES.get(device.type, _VALUES_ELSEWHERE)
        decodings = max(1, decoded // _values_decoded(model, guide, first))
        images = chunk or max(1, min(decodings, own_values // variant.values(guide, first)))
        blocked = _Blocks(noise, max(1, decodings // min(images, len(x))))
        for part in x.split(images):
            own = variant(guide, part.to(device))
            found.append(_regret(model, part.to(device), own, BOUNDS[bound], make(own.parameters), blocked, looks))
            done += len(part)
            if progress is not None:
                progress("likelihood regret", done, len(x))
    return Regret(*(torch.cat(column).cpu() for column in zip(*found, strict=True)))


def _check(counts: Mapping[str, int], steps: int, lr: float | None, bound: str) -> None:
    """Refuse options out of range."""
    for name, value in counts.items():
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    if steps < 0:
        raise InputError(f"steps: expected at least 0, got {steps}")
    if lr is not None and not lr > 0:
        raise InputError(f"lr: expected a step size above 0, got {lr}")
    if bound not in BOUNDS:
        raise InputError(f"bound: expected one of {', '.join(BOUNDS)}, got {bound!r}")


def _regret(
    model: Model, x: Tensor, own: Adapted, bound: Bound, optimizer: Optimizer, noise: "_Blocks", looks: Sequence[bool]
) -> Regret:
    """One chunk; ``looks`` says after which steps the reported bound is looked at."""
    with torch.no_grad():
        loc, scale = own.posterior()
        before = best = bound(model, x, loc, scale, noise.score)
    for step, look in enumerate(looks, start=1):
        optimizer.zero_grad()
        with torch.enable_grad():
            (-elbo(model, x, *own.posterior(), noise.step(step)).sum()).backward()
        optimizer.step()
        if look:
            with torch.no_grad():
                new_loc, new_scale = own.posterior()
                now = bound(model, x, new_loc, new_scale, noise.score)
                better = now > best  # never where it is not a number
                best = now.where(better, best)
                loc = new_loc.where(_like(better, loc), loc)
                scale = new_scale.where(_like(better, scale), scale)
    return Regret(best - before, before, best, loc, scale)


def _like(rows: Tensor, tensor: Tensor) -> Tensor:
    return rows.reshape(-1, *[1] * (tensor.dim() - 1))


class _Blocks:
    """The noise in blocks of so many samples, which are decoded at once."""

    def __init__(self, noise: _Noise, samples: int) -> None:
        self.score = noise.score.split(samples)
        self._step, self._samples = noise.step, samples

    def step(self, number: int) -> Sequence[Tensor]:
        """That of a step."""
        return self._step(number).split(self._samples)


def _fixed(nodes: Tensor, x: Tensor) -> _Noise:
    points = nodes.to(x)
    return _Noise(points, lambda step: points)


def _drawn(guide: Guide, x: Tensor, num_samples: int, step_samples: int, seed: int) -> _Noise:
    """Drawn on the CPU, so that every device has the same; one noise for all images."""
    latent_dim = guide.encode(x)[0].shape[-1]

    def draw(count: int, stream: str, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(stream_seed(seed, stream, index))
        return torch.randn(count, latent_dim, generator=generator, dtype=x.dtype).to(x.device)

    return _Noise(draw(num_samples, "regret", 0), lambda step: draw(step_samples, "regret", step))


def _values_decoded(model: Model, guide: Guide, x: Tensor) -> int:
    """How many values the likelihood of one image takes."""
    with torch.no_grad():
        return x.numel() * parameters_per_value(model.observe(guide.encode(x)[0]))
