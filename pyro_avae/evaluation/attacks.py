r"""White-box L∞ PGD through encoder and probe, worst case over restarts.

The attack maximises the cross entropy of the right class by signed gradient steps (Madry et al. 2018). Its steps follow

.. math:: g(x) = \log\sum_{k \ne y} e^{l_k(x)} - l_y(x), \qquad
          \mathrm{CE}(x) = \log(1 + e^{g(x)}),

which has the same gradient sign everywhere, because CE is increasing in g. The cross entropy itself saturates: where
the classifier is confident its gradient underflows to zero and the attack stands still, an accident of rounding that
would count as robustness. g does not saturate.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["PGDResult", "check_epsilons", "check_pgd", "pgd", "step_size"]


class PGDResult(NamedTuple):
    """What an attack left standing.

    Attributes:
        correct: ``(B,)`` bool; true where the clean image and every attacked one were classified right.
        adversarial: ``(B, *event)``; a misclassified image in the ε-ball where there is one, else the last iterate.
    """

    correct: Tensor
    adversarial: Tensor


def step_size(epsilon: float, steps: int) -> float:
    """The length of one step, 2.5 ε / steps: any point of the ball can be reached from any other, with room to turn."""
    return 2.5 * epsilon / steps


def check_epsilons(epsilons: Sequence[float]) -> tuple[float, ...]:
    """The radii as floats, in [0, 1], each at most once.

    Raises:
        InputError: for an empty list, a repeated radius, or one that is negative, above 1 or not a number.
    """
    values = tuple(float(epsilon) for epsilon in epsilons)
    if not values:
        raise InputError("epsilons: expected at least one radius in [0, 1], got none")
    for value in values:
        if not 0.0 <= value <= 1.0:  # false for NaN too
            raise InputError(f"epsilons: expected L∞ radii in [0, 1] (pixels lie in [0, 1]), got {value}")
    if len(set(values)) < len(values):
        raise InputError(f"epsilons: expected each radius once, got {list(values)}")
    return values


def check_pgd(steps: int, restarts: int) -> None:
    """Refuse an attack without steps or without a start.

    Raises:
        InputError: for fewer than one step or restart.
    """
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")


def pgd(
    classifier: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    steps: int = 40,
    restarts: int = 2,
    generator: torch.Generator | None = None,
) -> PGDResult:
    """Attack a batch within the L∞ ball of radius ``epsilon`` intersected with [0, 1].

    Every restart begins at a uniform random point of the ball and takes ``steps`` signed gradient steps of
    :func:`step_size`, each projected. An image is right only if the classifier is right on the image itself and on
    every iterate of every restart; one that fell is attacked no further, which changes no other image.

    Args:
        classifier: ``(B, *event)`` to logits ``(B, K)``; see :func:`~pyro_avae.evaluation.frozen.frozen`.
        x: images ``(B, *event)`` in [0, 1].
        labels: ``(B,)``.
        epsilon: radius, in pixel units of [0, 1]; 0 gives the clean accuracy.
        steps: gradient steps a restart.
        restarts: random starts.
        generator: source of the random starts, on the device of ``x``.

    Raises:
        InputError: for an impossible radius, step or restart count, or images outside [0, 1].

    Example:
        >>> classifier = lambda x: torch.stack([x.sum(-1), 1.0 - x.sum(-1)], -1)
        >>> x, y = torch.tensor([[0.3, 0.3], [0.9, 0.9]]), torch.tensor([0, 0])
        >>> pgd(classifier, x, y, 0.1, generator=torch.Generator().manual_seed(0)).correct.tolist()
        [False, True]
    """
    (epsilon,) = check_epsilons([epsilon])
    check_pgd(steps, restarts)
    if bool((x < 0).any() | (x > 1).any()):
        raise InputError(f"pgd: expected pixels in [0, 1], got {float(x.min()):.3g}..{float(x.max()):.3g}")
    with torch.no_grad():
        correct = classifier(x).argmax(-1) == labels
    adversarial = x.clone()
    for _ in range(restarts if epsilon > 0 else 0):
        standing = correct.nonzero().squeeze(1)
        if len(standing) == 0:
            break
        fell, images = _restart(classifier, x[standing], labels[standing], epsilon, steps, generator)
        adversarial[standing] = images
        correct[standing[fell]] = False
    return PGDResult(correct, adversarial)


def _restart(
    classifier: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """One random start: which images fell, and where each stood when it fell or at the end."""
    low, high = (x - epsilon).clamp_(min=0.0), (x + epsilon).clamp_(max=1.0)
    noise = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    current = torch.minimum(torch.maximum(x + (2.0 * noise - 1.0) * epsilon, low), high)
    final = torch.empty_like(x)
    standing = torch.arange(len(x), device=x.device)
    length = step_size(epsilon, steps)
    for step in range(steps + 1):
        current.requires_grad_()
        logits = classifier(current)
        right = logits.detach().argmax(-1) == labels
        last = step == steps
        gradient = None if last else torch.autograd.grad(_gap(logits, labels).sum(), current)[0]
        current = current.detach()
        final[standing] = current
        if not bool(right.all()):
            standing, current, labels, low, high = (t[right] for t in (standing, current, labels, low, high))
            gradient = None if gradient is None else gradient[right]
        if gradient is None or len(standing) == 0:
            break
        current = torch.minimum(torch.maximum(current + length * gradient.sign(), low), high)
    fell = torch.ones(len(x), dtype=torch.bool, device=x.device)
    fell[standing] = False
    return fell, final


def _gap(logits: Tensor, labels: Tensor) -> Tensor:
    """g(x) of the module's docstring, ``(B,)``: positive and large where the right class has lost."""
    right = logits.gather(1, labels[:, None])
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.logsumexp(-1) - right[:, 0]
