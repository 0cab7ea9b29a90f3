"""Attacks that PGD has to beat: random noise, and one gradient step.

Where one of them breaks more images than PGD does, PGD is stuck and its accuracy means nothing (Athalye et al. 2018,
*Obfuscated Gradients Give a False Sense of Security*, section 3.1).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pyro_avae.evaluation.attacks import PGDResult, check_images, gap
from pyro_avae.evaluation.ball import LINF, Ball

__all__ = ["NOISE_DRAWS", "noise", "one_step"]

#: Random points of the ball's surface that are tried on each image.
NOISE_DRAWS = 10


def noise(
    predict: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    ball: Ball = LINF,
    draws: int = NOISE_DRAWS,
    generator: torch.Generator | None = None,
) -> PGDResult:
    """The worst of ``draws`` random points of the ball's surface: corners for L∞, the sphere for L2.

    Args:
        predict: ``(B, *event)`` to classes ``(B,)``.
        x: images ``(B, *event)`` in [0, 1].
        labels: ``(B,)``.
        epsilon: radius.
        ball: the norm.
        draws: points an image.
        generator: source of the points, on the device of ``x``.

    Raises:
        InputError: for images outside [0, 1].

    Example:
        >>> predict = lambda x: (x.sum(-1) < 0.5).long()
        >>> noise(predict, torch.tensor([[0.4], [0.9]]), torch.tensor([1, 0]), 0.2).correct.tolist()
        [False, True]
    """
    check_images("noise", x)
    with torch.no_grad():
        correct = predict(x) == labels
        adversarial = x.clone()
        for _ in range(draws if epsilon > 0 else 0):
            standing = correct.nonzero().squeeze(1)
            if len(standing) == 0:
                break
            images = ball.surface(x[standing], epsilon, generator)
            adversarial[standing] = images
            correct[standing] = predict(images) == labels[standing]
    return PGDResult(correct, adversarial)


def one_step(
    classifier: Callable[[Tensor], Tensor],
    predict: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    ball: Ball = LINF,
) -> PGDResult:
    """One gradient step from the image itself to the ball's surface; for L∞ the fast gradient sign method.

    Args:
        classifier: ``(B, *event)`` to logits ``(B, K)``, for the gradient.
        predict: ``(B, *event)`` to classes ``(B,)``.
        x: images ``(B, *event)`` in [0, 1].
        labels: ``(B,)``.
        epsilon: radius.
        ball: the norm.

    Raises:
        InputError: for images outside [0, 1].

    Example:
        >>> classifier = lambda x: torch.stack([x.sum(-1), 1.0 - x.sum(-1)], -1)
        >>> predict = lambda x: classifier(x).argmax(-1)
        >>> one_step(classifier, predict, torch.tensor([[0.3, 0.3]]), torch.tensor([0]), 0.1).correct.tolist()
        [False]
    """
    check_images("one step", x)
    with torch.no_grad():
        correct = predict(x) == labels
    if epsilon == 0:
        return PGDResult(correct, x.clone())
    point = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(gap(classifier(point), labels).sum(), point)
    with torch.no_grad():
        adversarial = ball.project(x + epsilon * ball.direction(gradient), x, epsilon)
        correct &= predict(adversarial) == labels
    return PGDResult(correct, adversarial)
