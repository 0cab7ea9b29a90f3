"""AutoAttack (Croce & Hein 2020), put together from torchattacks' parts.

Why torchattacks, and why not its own ``AutoAttack`` class:

- It has all four parts; foolbox 3.3.4 has neither APGD nor Square.
- Its price is a pin, ``requests~=2.25.1``, which it never imports: hence the extra ``attacks``.
- Its ``AutoAttack`` runs APGD and FAB for 10 steps where the published attack takes 100, so it is weaker than its name
  says. The parts are built here with the published settings.

What its parts do to their surroundings is contained here: they reseed torch's global generators, call ``backward``
(which writes into parameters' ``.grad``), and recurse ``train()`` over a model on the way out. Their claims are checked
as well: every returned image is projected to the ball and classified again.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.attacks import PGDResult
from pyro_avae.evaluation.ball import L2, LINF, Ball
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.randomness import isolated

__all__ = ["AUTOATTACK_IMAGES", "autoattack", "autoattack_parts", "autoattack_settings", "require_torchattacks"]

#: How many test images AutoAttack takes unless told otherwise; it costs some thousand passes an image.
AUTOATTACK_IMAGES = 1000

_STEPS = 100
_QUERIES = 5000
_TARGETS = 9  # targeted attacks go for the nine most likely wrong classes, as published

_SMALLEST_L2 = 10  # Square begins with tiles of a fifth of the height, and divides by their size


def require_torchattacks() -> Any:
    """The library, or an error that says how to get it.

    Raises:
        InputError: where torchattacks is not installed.
    """
    try:
        import torchattacks
    except ImportError as error:
        raise InputError(
            "attack 'autoattack': the package torchattacks is not installed; "
            "run `pip install torchattacks` or install the extra `pyro-avae[attacks]`, or use attack 'pgd'"
        ) from error
    return torchattacks


def autoattack_parts(num_classes: int) -> tuple[str, ...]:
    """The parts that are run on a task of ``num_classes`` classes, in order.

    The targeted DLR loss divides by differences of the four largest logits, so it, and targeted FAB with it, needs
    four classes; two- and three-class tasks take the untargeted FAB instead.

    Example:
        >>> autoattack_parts(10)
        ('apgd-ce', 'apgd-t', 'fab-t', 'square')
        >>> autoattack_parts(2)
        ('apgd-ce', 'fab', 'square')
    """
    return ("apgd-ce", "apgd-t", "fab-t", "square") if num_classes >= 4 else ("apgd-ce", "fab", "square")


def _builders(library: Any, steps: int, queries: int) -> dict[str, Callable[..., Any]]:
    """Each part by name: ``(classifier, classes, **common)`` to an attack."""
    return {
        "apgd-ce": lambda f, k, **common: library.APGD(f, loss="ce", steps=steps, **common),
        "apgd-t": lambda f, k, **common: library.APGDT(f, n_classes=k, steps=steps, **common),
        "fab-t": lambda f, k, **common: library.FAB(f, multi_targeted=True, n_classes=k, steps=steps, **common),
        "fab": lambda f, k, **common: library.FAB(f, n_classes=k, steps=steps, **common),
        "square": lambda f, k, **common: library.Square(f, n_queries=queries, **common),
    }


def autoattack(
    classifier: nn.Module,
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    num_classes: int,
    ball: Ball = LINF,
    seed: int = 0,
    steps: int = _STEPS,
    queries: int = _QUERIES,
) -> PGDResult:
    """Worst case over AutoAttack's parts within the ball of radius ``epsilon`` intersected with [0, 1].

    Args:
        classifier: images ``(B, C, H, W)`` to logits ``(B, K)``.
        x: images in [0, 1].
        labels: ``(B,)``.
        epsilon: radius; 0 gives the clean accuracy.
        num_classes: K, at least 2.
        ball: the norm, L∞ or L2.
        seed: seed of the random starts and squares; torch's own random state is left as it was.
        steps: iterations of APGD and FAB, 100 as published.
        queries: queries of Square, 5000 as published.

    Raises:
        InputError: where torchattacks is not installed, or images are not ``(B, C, H, W)``, or too small for L2.
    """
    library = require_torchattacks()
    if x.ndim != 4:
        raise InputError(f"autoattack: expected images of shape (B, C, H, W), got {tuple(x.shape)}")
    predict = getattr(classifier, "predict", None) or _prediction(classifier)
    if ball is L2 and min(x.shape[2:]) < _SMALLEST_L2:
        raise InputError(
            f"autoattack: expected images of at least {_SMALLEST_L2} x {_SMALLEST_L2} pixels in L2, got"
            f" {x.shape[2]} x {x.shape[3]}; Square cannot tile smaller ones"
        )
    with frozen(classifier), isolated(seed):
        correct = predict(x) == labels
        adversarial = x.clone()
        builders = _builders(library, steps, queries)
        for name in autoattack_parts(num_classes) if epsilon > 0 else ():
            standing = correct.nonzero().squeeze(1)
            if len(standing) == 0:
                break
            classes = min(num_classes, _TARGETS + 1)
            attack = builders[name](classifier, classes, norm=ball.name, eps=epsilon, seed=seed, n_restarts=1)
            # FAB minimises a distance and may end outside the ball.
            images = ball.project(attack(x[standing], labels[standing]).detach(), x[standing], epsilon)
            fell = predict(images) != labels[standing]
            adversarial[standing] = images
            correct[standing[fell]] = False
    return PGDResult(correct, adversarial)


def _prediction(classifier: nn.Module) -> Callable[[Tensor], Tensor]:
    """The class that the logits say, for a module that has no ``predict`` of its own."""

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            classes: Tensor = classifier(x).argmax(-1)
        return classes

    return predict


def autoattack_settings() -> dict[str, Any]:
    """The library and the settings behind :func:`autoattack`, as they are written into an evaluation."""
    return {"library": f"torchattacks {version('torchattacks')}", "steps": _STEPS, "queries": _QUERIES}
