r"""The unsupervised latent attack: move the posterior as far as a small change of the image can.

.. math:: \max_{x'} \tfrac12 \mathrm{KL}(q(z|x) \,\|\, q(z|x')) + \tfrac12 \mathrm{KL}(q(z|x') \,\|\, q(z|x))
          \quad\text{subject to}\quad \|x' - x\|_\infty \le \varepsilon,\; x' \in [0, 1]^D

(Kuzina, Welling & Tomczak 2022, arXiv 2203.09940). It needs no labels and no classifier.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.attacks import check_epsilons, check_pgd
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.ms_ssim import ms_ssim, ms_ssim_settings
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.plain import plain_number
from pyro_avae.randomness import stream_seed

__all__ = ["check_images", "latent_attack", "latent_pgd", "symmetric_kl"]


def symmetric_kl(loc_a: Tensor, scale_a: Tensor, loc_b: Tensor, scale_b: Tensor) -> Tensor:
    r"""Half the sum of both KL divergences between two Gaussians, in nats.

    .. math:: \tfrac14\bigl[\mathrm{tr}(\Sigma_b^{-1}\Sigma_a) + \mathrm{tr}(\Sigma_a^{-1}\Sigma_b) - 2L
              + d^\top(\Sigma_a^{-1} + \Sigma_b^{-1})d\bigr], \qquad d = \mu_a - \mu_b;

    the log-determinants cancel.

    Args:
        loc_a: ``(..., L)``.
        scale_a: ``(..., L)`` standard deviations, or ``(..., L, L)`` a lower Cholesky factor.
        loc_b: as ``loc_a``.
        scale_b: as ``scale_a``; one may be diagonal where the other is not.

    Returns:
        ``(...)``.

    Example:
        >>> symmetric_kl(torch.zeros(2), torch.ones(2), torch.ones(2), torch.ones(2))
        tensor(1.)
    """
    difference = loc_a - loc_b
    if scale_a.shape == loc_a.shape and scale_b.shape == loc_b.shape:
        spread = (scale_a / scale_b - scale_b / scale_a).square()
        shift = (difference / scale_a).square() + (difference / scale_b).square()
        return 0.25 * (spread + shift).sum(-1)
    a, b = (s if s.dim() > m.dim() else torch.diag_embed(s) for s, m in ((scale_a, loc_a), (scale_b, loc_b)))
    return 0.25 * (_half(a, b, difference) + _half(b, a, difference) - 2 * loc_a.shape[-1])


def _half(a: Tensor, b: Tensor, difference: Tensor) -> Tensor:
    """tr(B⁻¹A) + d'B⁻¹d for A = aa', B = bb', from one triangular solve."""
    columns = torch.cat([a, difference.unsqueeze(-1)], dim=-1)
    return torch.linalg.solve_triangular(b, columns, upper=False).square().sum((-2, -1))


def latent_pgd(
    guide: Guide, x: Tensor, epsilon: float, *, steps: int = 50, generator: torch.Generator | None = None
) -> Tensor:
    """One restart of the attack: the best iterate of projected gradient ascent, ``(B, *event)`` like ``x``.

    It begins at a uniform random point of the ball (at x itself the gradient vanishes) and takes ``steps`` signed
    gradient steps of length 2.5 ε / steps, each projected to the ball and to [0, 1]. The published attack takes plain
    gradient steps; their signs do not depend on the scale of the latents, which differs between methods.

    Args:
        guide: q(z|x), through ``encode``; see :func:`~pyro_avae.evaluation.frozen`.
        x: reference images ``(B, *event)`` in [0, 1].
        epsilon: L∞ radius, in pixel units of [0, 1].
        steps: gradient steps.
        generator: source of the random start, on the device of ``x``.

    Raises:
        InputError: for an impossible radius or step count, or images outside [0, 1].

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> encoder = LinearEncoder.from_affine(torch.tensor([[1.0, -2.0]]), torch.zeros(1), torch.ones(1, 1))
        >>> x = torch.full((1, 2), 0.5)
        >>> change = latent_pgd(AmortizedGuide(encoder), x, 0.1, generator=torch.Generator().manual_seed(0)) - x
        >>> torch.allclose(change * change[0, 0].sign(), torch.tensor([[0.1, -0.1]]))
        True
    """
    (epsilon,) = check_epsilons([epsilon])
    check_pgd(steps, 1)
    check_images("latent_pgd", x)
    with torch.no_grad():
        reference = guide.encode(x)
    low, high = (x - epsilon).clamp(min=0.0), (x + epsilon).clamp(max=1.0)
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    current = torch.minimum(torch.maximum(x + (2.0 * noise - 1.0) * epsilon, low), high)
    best, best_value = x.clone(), x.new_zeros(len(x))
    length = 2.5 * epsilon / steps  # any point of the ball can be reached from any other, with room to turn
    for step in range(steps + 1):
        current.requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            value = symmetric_kl(*reference, *guide.encode(current))
            gradient = torch.autograd.grad(value.sum(), current)[0] if step < steps else None
        current, value = current.detach(), value.detach()
        better = value > best_value
        # No mask as an index: an accelerator would have to be waited for at every step.
        best = torch.where(better.reshape(-1, *(1,) * (x.dim() - 1)), current, best)
        best_value = torch.where(better, value, best_value)
        if gradient is not None:
            current = torch.minimum(torch.maximum(current + length * gradient.sign(), low), high)
    return best


def latent_attack(
    model: Model,
    guide: Guide,
    x: Tensor,
    *,
    epsilons: Sequence[float] = (0.1, 0.2),
    steps: int = 50,
    restarts: int = 10,
    batch_size: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """How far the posterior and the reconstruction move under the strongest change of the image that was found.

    Four numbers at each radius, means over images of what :func:`latent_pgd` reached in each restart:

    - ``symmetric_kl``, nats, between q(z|x) and q(z|x');
    - ``mean_distance``, the Euclidean distance of the two posterior means;
    - ``ms_ssim_reconstruction``, MS-SSIM of the two reconstructions (decoded posterior means): 1 if they are equal;
    - ``ms_ssim_input``, MS-SSIM of x and x': how visible the attack is.

    Each has ``mean_over_restarts`` (the average of the paper) and ``worst_over_restarts``: for each image the restart
    with the largest divergence or distance, or the smallest similarity, number by number. The paper measures similarity
    with shrunken windows of 14 pixels and on sampled latents, so its values are not comparable one to one.

    Args:
        model: p(x|z), through ``decode``.
        guide: q(z|x), Gaussian, through ``encode``.
        x: reference images ``(B, *event)`` in [0, 1]; the paper takes 50.
        epsilons: L∞ radii in [0, 1].
        steps: gradient steps of a restart.
        restarts: random starts.
        batch_size: images at a time.
        seed: seed of the random starts; each radius gets the same.

    Returns:
        Plain numbers: ``radii``, by ``str(epsilon)`` the numbers above; ``attack``, its settings; ``ms_ssim``, the
        scales (see :func:`~pyro_avae.evaluation.ms_ssim_settings`); ``num_images``; ``seed``. A number that is not
        finite is None, and so are the similarities, and ``ms_ssim``, where x are no images of 11 pixels or more.

    Raises:
        InputError: for a radius outside [0, 1], counts below 1, or images outside [0, 1].

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> from pyro_avae.models import VAE, MLPDecoder
        >>> model = VAE(MLPDecoder(2, (1, 28, 28), hidden=[8]), latent_dim=2)
        >>> guide = AmortizedGuide(MLPEncoder((1, 28, 28), 2, hidden=[8]))
        >>> result = latent_attack(model, guide, torch.rand(3, 1, 28, 28), epsilons=[0.1], steps=5, restarts=2)
        >>> sorted(result["radii"]["0.1"])
        ['mean_distance', 'ms_ssim_input', 'ms_ssim_reconstruction', 'symmetric_kl']

    Source: A. Kuzina, M. Welling, J. M. Tomczak, *Alleviating Adversarial Attacks on Variational Autoencoders with
        MCMC*, NeurIPS 2022, arXiv 2203.09940.
    """
    radii = check_epsilons(epsilons)
    check_pgd(steps, restarts)
    check_images("latent_attack", x, batch_size)
    x = x.to(device_of(guide, model))
    with frozen(model, guide):
        results = {
            str(epsilon): _summary(
                [_restart(model, guide, x, epsilon, steps, batch_size, seed, start) for start in range(restarts)]
            )
            for epsilon in radii
        }
    return {
        "radii": results,
        "attack": {
            "objective": "symmetric KL of the posteriors",
            "norm": "Linf",
            "epsilons": list(radii),
            "steps": steps,
            "restarts": restarts,
            "step_size": "2.5 * epsilon / steps",
            "random_start": True,
        },
        "ms_ssim": ms_ssim_settings(x.shape[1:]),
        "num_images": len(x),
        "seed": seed,
    }


def check_images(name: str, x: Tensor, batch_size: int = 1) -> None:
    """Refuse what an attack cannot start from.

    Raises:
        InputError: for no images, pixels outside [0, 1], or batches without an image.
    """
    if x.dim() < 2 or len(x) == 0:
        raise InputError(f"{name}: expected images (B, *event), B >= 1, got shape {tuple(x.shape)}")
    if not bool(((x >= 0) & (x <= 1)).all()):  # false for NaN too
        raise InputError(f"{name}: expected pixels in [0, 1], got {float(x.min()):.3g}..{float(x.max()):.3g}")
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")


def _restart(
    model: Model, guide: Guide, x: Tensor, epsilon: float, steps: int, batch_size: int, seed: int, start: int
) -> dict[str, Tensor]:
    """One random start on all images: each measure, ``(B,)``."""
    generator = torch.Generator(x.device).manual_seed(stream_seed(seed, "latent attack", start))
    parts = [
        _measures(model, guide, part, latent_pgd(guide, part, epsilon, steps=steps, generator=generator))
        for part in x.split(batch_size)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@torch.no_grad()
def _measures(model: Model, guide: Guide, x: Tensor, adversarial: Tensor) -> dict[str, Tensor]:
    """What the attack changed, each measure ``(B,)``; a similarity that is not defined is NaN."""
    clean, moved = guide.encode(x), guide.encode(adversarial)
    undefined = x.new_full((len(x),), torch.nan)
    images = ms_ssim_settings(x.shape[1:]) is not None
    return {
        "symmetric_kl": symmetric_kl(*clean, *moved),
        "mean_distance": (clean[0] - moved[0]).norm(dim=-1),
        "ms_ssim_reconstruction": ms_ssim(model.decode(clean[0]), model.decode(moved[0])) if images else undefined,
        "ms_ssim_input": ms_ssim(x, adversarial) if images else undefined,
    }


def _summary(restarts: list[dict[str, Tensor]]) -> dict[str, dict[str, float | None]]:
    """Means over images: of the average restart, and of each image's worst."""
    summary = {}
    for name in restarts[0]:
        values = torch.stack([restart[name] for restart in restarts]).double()  # (restarts, B)
        worst = values.amin(0) if name.startswith("ms_ssim") else values.amax(0)
        summary[name] = {
            "mean_over_restarts": plain_number(values.mean()),
            "worst_over_restarts": plain_number(worst.mean()),
        }
    return summary
