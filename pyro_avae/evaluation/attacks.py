r"""White-box PGD through encoder and probe, worst case over restarts.

The attack maximises the cross entropy of the right class by gradient steps (Madry et al. 2018). Its steps follow

.. math:: g(x) = \log\sum_{k \ne y} e^{l_k(x)} - l_y(x), \qquad
          \mathrm{CE}(x) = \log(1 + e^{g(x)}),

which has the same gradient direction everywhere, because CE is increasing in g. The cross entropy itself saturates:
where the classifier is confident its gradient underflows to zero and the attack stands still, an accident of rounding
that would count as robustness. g does not saturate.

Three things make the difference between this attack and PGD of short steps of one length, which stops in the first
local maximum it meets and leaves several times as many images standing as AutoAttack does:

- The first step crosses the whole ball, and the steps shorten as half a cosine (:func:`step_length`).
- All but the first restart are targeted, each at another class: they follow :math:`l_t(x) - l_y(x)` with t the second
  most likely class of the clean image, then the third, ... (as in Gowal et al. 2019, *An Alternative Surrogate Loss for
  PGD-based Adversarial Testing*). g chases the class that is ahead at the moment, which need not be one that can be
  reached. Where the classes run out (at two classes, from the start) restarts follow g.
- They start on the surface of the ball, at a corner for L∞.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ball import LINF, Ball, check_radii

__all__ = ["PGDResult", "check_epsilons", "check_images", "check_pgd", "gap", "pgd", "step_length", "step_size"]


# The share of fallen images from which on a restart goes on with copies of the others: copying has a price too.
_WORTH_COPYING = 0.125

# Steps between two counts of the images that stand, which make an accelerator wait for all that it was asked before.
_STEPS_BETWEEN_COUNTS = 8


class PGDResult(NamedTuple):
    """What an attack left standing.

    Attributes:
        correct: ``(B,)`` bool; true where the clean image and every attacked one were classified right.
        adversarial: ``(B, *event)``; a misclassified image in the ε-ball where there is one, else the last iterate.
    """

    correct: Tensor
    adversarial: Tensor


def step_size(epsilon: float, steps: int) -> float:
    """The length of steps that are all alike, 2.5 ε / steps: any point of the ball is reachable, with room to turn."""
    return 2.5 * epsilon / steps


def step_length(epsilon: float, step: int, steps: int) -> float:
    """ε (1 + cos(π step / steps)), the length of PGD's step: 2 ε at first, from one side of the ball to the other.

    Example:
        >>> [round(step_length(0.1, step, 4), 3) for step in range(4)]
        [0.2, 0.171, 0.1, 0.029]
    """
    return epsilon * (1.0 + math.cos(math.pi * step / steps))


def check_epsilons(epsilons: Sequence[float]) -> tuple[float, ...]:
    """The L∞ radii as floats, in [0, 1], each at most once.

    Raises:
        InputError: for an empty list, a repeated radius, or one that is negative, above 1 or not a number.
    """
    if not tuple(epsilons):
        raise InputError("epsilons: expected at least one radius in [0, 1], got none")
    return check_radii("epsilons", epsilons, LINF)


def check_pgd(steps: int, restarts: int) -> None:
    """Refuse an attack without steps or without a start.

    Raises:
        InputError: for fewer than one step or restart.
    """
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")


def check_images(attack: str, x: Tensor) -> None:
    """Refuse images that do not lie in [0, 1].

    Raises:
        InputError: for pixels outside [0, 1].
    """
    if x.numel() == 0:
        return
    low, high = (float(bound) for bound in x.aminmax())
    if low < 0 or high > 1:
        raise InputError(f"{attack}: expected pixels in [0, 1], got {low:.3g}..{high:.3g}")


def pgd(
    classifier: Callable[[Tensor], Tensor],
    x: Tensor,
    labels: Tensor,
    epsilon: float,
    *,
    ball: Ball = LINF,
    steps: int = 40,
    restarts: int = 4,
    generator: torch.Generator | None = None,
    verdict: Callable[[Tensor], Tensor] | None = None,
    persistent: bool = False,
) -> PGDResult:
    """Attack a batch within the ball of radius ``epsilon`` intersected with [0, 1].

    Every restart begins at a random point of the ball's surface and takes ``steps`` gradient steps of
    :func:`step_length`, each projected. An image is right only if the classifier is right on the image itself and on
    every iterate of every restart; one that fell is attacked no further, which changes no other image.

    A classifier that is random, such as :class:`~pyro_avae.evaluation.sampled.SampledClassifier`, draws anew at every
    step, so that the steps follow the expected gradient (Athalye et al. 2018, expectation over transformation). It
    would be wrong on some of some hundred draws by chance alone; ``verdict`` then decides whether an image really fell.

    Args:
        classifier: ``(B, *event)`` to logits ``(B, K)``; see :func:`~pyro_avae.evaluation.frozen.frozen`.
        x: images ``(B, *event)`` in [0, 1].
        labels: ``(B,)``.
        epsilon: radius, for L∞ in pixel units of [0, 1]; 0 gives the clean accuracy.
        ball: :data:`~pyro_avae.evaluation.ball.LINF` or :data:`~pyro_avae.evaluation.ball.L2`.
        steps: gradient steps a restart.
        restarts: random starts: the first untargeted, the others targeted as long as there are classes left.
        generator: source of the random starts, on the device of ``x``.
        verdict: ``(B, *event)`` to the classes ``(B,)`` that count, asked about images whose logits say that they
            fell, and about the clean images; by default the logits' own.
        persistent: take all steps with an image that fell, and return the last iterate; for images that are to be
            tried on another classifier.

    Raises:
        InputError: for an impossible radius, step or restart count, or images outside [0, 1].

    Example:
        >>> classifier = lambda x: torch.stack([x.sum(-1), 1.0 - x.sum(-1)], -1)
        >>> x, y = torch.tensor([[0.3, 0.3], [0.9, 0.9]]), torch.tensor([0, 0])
        >>> pgd(classifier, x, y, 0.1, generator=torch.Generator().manual_seed(0)).correct.tolist()
        [False, True]
    """
    (epsilon,) = check_radii("epsilon", [epsilon], ball)
    check_pgd(steps, restarts)
    check_images("pgd", x)
    with torch.no_grad():
        logits = classifier(x)
        correct = (logits.argmax(-1) if verdict is None else verdict(x)) == labels
    adversarial = x.clone()
    search = _Search(classifier, epsilon, ball, steps, generator, verdict, persistent)
    for target in _targets(logits, labels, restarts) if epsilon > 0 else ():
        standing = (correct | persistent).nonzero().squeeze(1)
        if len(standing) == 0:
            break
        fell, images = search.run(x[standing], labels[standing], None if target is None else target[standing])
        adversarial[standing] = images
        correct[standing[fell]] = False
    return PGDResult(correct, adversarial)


def gap(logits: Tensor, labels: Tensor) -> Tensor:
    """g(x) of the module's docstring, ``(B,)``: positive and large where the right class has lost."""
    right = logits.gather(1, labels[:, None])
    wrong = logits.scatter(1, labels[:, None], -torch.inf)
    return wrong.logsumexp(-1) - right[:, 0]


def _targets(logits: Tensor, labels: Tensor, restarts: int) -> list[Tensor | None]:
    """The class ``(B,)`` that each restart goes for, likeliest first; None for any class but the right one."""
    count = logits.shape[-1] - 1
    if count < 2:  # the one wrong class is the target anyway
        return [None] * restarts
    order = logits.scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)
    targets: list[Tensor | None] = [None, *order[:, :count].unbind(1)]
    return (targets + [None] * restarts)[:restarts]


@dataclass(frozen=True)
class _Search:
    """The settings that all restarts share."""

    classifier: Callable[[Tensor], Tensor]
    epsilon: float
    ball: Ball
    steps: int
    generator: torch.Generator | None
    verdict: Callable[[Tensor], Tensor] | None
    persistent: bool

    def run(self, x: Tensor, labels: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
        """One random start: which images fell, and where each stood when it fell or at the end."""
        active = _Active(
            places=torch.arange(len(x), device=x.device),
            current=self.ball.surface(x, self.epsilon, self.generator),
            limits=self.ball.limits(x, self.epsilon),
            labels=labels,
            target=target,
            fell=torch.zeros(len(x), dtype=torch.bool, device=x.device),
        )
        fell, final = torch.empty_like(active.fell), torch.empty_like(x)
        for step in range(self.steps):
            gradient = self._gradient(active)
            length = step_length(self.epsilon, step, self.steps)
            # An image that fell stays where it fell, without a question to the device how many did.
            lengths = length * (~active.fell | self.persistent).to(x.dtype)
            active.current = self.ball.step(active.current, gradient, lengths, active.limits, self.epsilon)
            if not self.persistent and step % _steps_between_counts(x.device) == 0:
                count, standing = len(active.fell), int((~active.fell).sum())
                if count - standing >= _WORTH_COPYING * count:
                    active.write(fell, final)
                    active = active.among(~active.fell)
                if standing == 0:
                    return fell, final
        with torch.no_grad():
            self._judge(active, self.classifier(active.current))
        active.write(fell, final)
        return fell, final

    def _gradient(self, active: "_Active") -> Tensor:
        """Judge the images where they are, and return the gradient ``(A, *event)`` of what a step raises."""
        current = active.current.detach().requires_grad_()
        logits = self.classifier(current)
        # With respect to the images alone: no gradient of a parameter is computed, let alone kept.
        (gradient,) = torch.autograd.grad(_loss(logits, active.labels, active.target).sum(), current)
        self._judge(active, logits.detach())
        return gradient

    def _judge(self, active: "_Active", logits: Tensor) -> None:
        """Note which images fell: by the logits and, where one is asked, by the verdict."""
        wrong = (logits.argmax(-1) != active.labels) & ~active.fell
        if self.verdict is not None and bool(wrong.any()):
            with torch.no_grad():
                wrong[wrong.clone()] = self.verdict(active.current[wrong]) != active.labels[wrong]
        active.fell |= wrong


@dataclass
class _Active:
    """The images that a restart still steps with, and where they are.

    Attributes:
        places: of the images in the batch, ``(A,)``.
        current: ``(A, *event)``.
        limits: of their balls.
        labels: ``(A,)``.
        target: the classes ``(A,)`` they are to become, None for any.
        fell: ``(A,)`` bool.
    """

    places: Tensor
    current: Tensor
    limits: tuple[Tensor, ...]
    labels: Tensor
    target: Tensor | None
    fell: Tensor

    def among(self, kept: Tensor) -> "_Active":
        """Those images of which ``kept`` ``(A,)`` is true."""
        index = kept.nonzero().squeeze(1)
        return _Active(
            places=self.places[index],
            current=self.current[index],
            limits=tuple(limit[index] for limit in self.limits),
            labels=self.labels[index],
            target=None if self.target is None else self.target[index],
            fell=self.fell[index],
        )

    def write(self, fell: Tensor, final: Tensor) -> None:
        """Write what is known of them into the batch's results."""
        fell[self.places], final[self.places] = self.fell, self.current


def _steps_between_counts(device: torch.device) -> int:
    """After how many steps to ask how many images stand; on a CPU the answer is there already."""
    return 1 if device.type == "cpu" else _STEPS_BETWEEN_COUNTS


def _loss(logits: Tensor, labels: Tensor, target: Tensor | None) -> Tensor:
    """What a step raises, ``(B,)``."""
    if target is None:
        return gap(logits, labels)
    return (logits.gather(1, target[:, None]) - logits.gather(1, labels[:, None]))[:, 0]
