r"""Is an accuracy under attack more than an attack that got stuck?

Two signs of gradient masking (Athalye et al. 2018, section 3.1; Carlini et al. 2019, *On Evaluating Adversarial
Robustness*, section 3.1), each of which makes an accuracy under attack worthless:

- **Accuracy stays up at a large radius.** At L∞ radius 0.5 every ball holds the uniformly grey image, which the
  classifier puts into one class, whichever that is. A perfect attack therefore leaves at most the images of one class
  standing: no more than the majority's share. What PGD leaves is held against

  .. math:: c + \sqrt{c (1 - c) / n}, \qquad c = \max(1/K,\ \text{majority's share}),

  chance and one binomial standard error over the n images.
- **A weaker attack breaks more images than PGD**: one gradient step, random noise, or images made against another pair.
"""

from collections.abc import Mapping
from typing import Any

from pyro_avae.evaluation.ball import Ball
from pyro_avae.evaluation.robustness import Standing

__all__ = ["MASKING_IMAGES", "Results", "masking_check"]

#: The check at the large radius takes this many of the first test images.
MASKING_IMAGES = 500

#: What each attack left standing, by name; ``"pgd"`` is among them.
Results = Mapping[str, Standing]


def masking_check(
    at_large: Results, elsewhere: Mapping[Ball, Results], ball: Ball, *, num_classes: int, is_random: bool
) -> dict[str, Any]:
    """The check of one task, as it is written into an evaluation.

    Args:
        at_large: results at one radius, the large one.
        elsewhere: results of the evaluation proper, by norm.
        ball: the norm of the large radius.
        num_classes: K.
        is_random: whether the classifier is random. Two attacks then differ by chance, and one is stronger than PGD
            only where it is so by more than one binomial standard error.

    Example:
        >>> import torch
        >>> from pyro_avae.evaluation.ball import LINF
        >>> labels = torch.arange(100) % 2
        >>> pgd = Standing(labels, {0.5: labels >= 0})  # stuck: all images stand
        >>> noise = Standing(labels, {0.5: labels > 0})
        >>> check = masking_check({"pgd": pgd, "noise": noise}, {}, LINF, num_classes=2, is_random=False)
        >>> check["at_or_below_chance"], check["stronger_than_pgd"][0]["attack"], check["passed"]
        (False, 'noise', False)
    """
    pgd = at_large["pgd"]
    ((epsilon, correct),) = pgd.correct.items()
    count = len(correct)
    chance = max(1.0 / num_classes, int(pgd.labels.bincount().max()) / count)
    error = _standard_error(chance, count)
    below = pgd.accuracy()[str(epsilon)] <= chance + error
    stronger = [
        entry
        for norm, results in [*elsewhere.items(), (ball, at_large)]
        for entry in _stronger(norm, results, is_random=is_random)
    ]
    return {
        "norm": ball.name,
        "epsilon": epsilon,
        "num_images": count,
        "accuracy": {name: left.accuracy()[str(epsilon)] for name, left in at_large.items()},
        "chance": chance,
        "standard_error": error,
        "at_or_below_chance": below,
        "stronger_than_pgd": stronger,
        "passed": below and not stronger,
    }


def _stronger(ball: Ball, results: Results, *, is_random: bool) -> list[dict[str, Any]]:
    """The attacks and radii above 0 at which fewer images were left standing than by PGD."""
    found = []
    for name, left in results.items():
        for radius, correct in left.correct.items():
            reference = results["pgd"].correct[radius].double().mean().item()
            accuracy = correct.double().mean().item()
            margin = _standard_error(reference, len(correct)) if is_random else 0.0
            if radius > 0 and accuracy < reference - margin:
                found.append(
                    {"attack": name, "norm": ball.name, "epsilon": radius, "accuracy": accuracy, "pgd": reference}
                )
    return found


def _standard_error(share: float, count: int) -> float:
    return float((share * (1.0 - share) / count) ** 0.5)
