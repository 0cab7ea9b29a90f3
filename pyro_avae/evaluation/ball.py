r"""The balls that attacks search: all images within a distance ε of one image, and within [0, 1].

A :class:`Ball` is a norm and what an attack needs of it: the way to go back into the ball, a point on its surface, and
the direction in which a step of a given length changes a loss the most. Points are points of the ball intersected with
[0, 1], because the image itself lies there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["BALLS", "L2", "LINF", "Ball", "check_radii"]


@dataclass(frozen=True)
class Ball:
    r"""A norm, as an attack uses it.

    Attributes:
        name: as it is written into an evaluation, ``"Linf"`` or ``"L2"``; the names that torchattacks has for them.
        suffix: appended to the keys of an evaluation's results, empty for L∞.
        largest: the largest radius that makes sense; images lie in [0, 1].
        limits: ``(x, epsilon)`` to tensors ``(B, *event)`` that say where the balls lie; what stays the same from step
            to step is computed once.
        into: ``(candidate, limits, epsilon)``, each image ``(B, *event)``, to a point of the ball in [0, 1].
        settled: whether ``into`` leaves its own points as they are to the last bit, as a projection without rounding
            would.
        surface: ``(x, epsilon, generator)`` to random points of the ball's surface, cut off at [0, 1]: corners for L∞,
            the sphere for L2.
        direction: a gradient ``(B, *event)`` to the step of norm 1 along which the loss rises the most: its sign, or
            the gradient divided by its L2 norm.

    Example:
        >>> x = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
        >>> LINF.project(x + 0.3, x, 0.1)
        tensor([[0.6000, 0.6000],
                [1.0000, 0.1000]])
        >>> L2.project(x + 0.3, x, 0.3)[1]  # the first pixel can go no further, so the second has the whole radius
        tensor([1.0000, 0.3000])
    """

    name: str
    suffix: str
    largest: float
    limits: Callable[[Tensor, float], tuple[Tensor, ...]]
    into: Callable[[Tensor, tuple[Tensor, ...], float], Tensor]
    settled: bool
    surface: Callable[[Tensor, float, torch.Generator | None], Tensor]
    direction: Callable[[Tensor], Tensor]

    def project(self, candidate: Tensor, x: Tensor, epsilon: float) -> Tensor:
        """Each image ``(B, *event)`` of ``candidate`` to a point of the ball around its ``x``, in [0, 1]."""
        return self.into(candidate, self.limits(x, epsilon), epsilon)

    def step(
        self, current: Tensor, gradient: Tensor, lengths: Tensor, limits: tuple[Tensor, ...], epsilon: float
    ) -> Tensor:
        """A step of each image ``(B, *event)`` along its gradient and back into its ball; a length of 0 is no move.

        Args:
            current: where the images are: points of the ball.
            gradient: of what the step is to raise.
            lengths: ``(B,)``, in the ball's norm.
            limits: of :attr:`limits`.
            epsilon: radius.

        Example:
            >>> x = torch.tensor([[0.5], [0.5]])
            >>> LINF.step(x, torch.ones_like(x), torch.tensor([0.3, 0.0]), LINF.limits(x, 0.1), 0.1)
            tensor([[0.6000],
                    [0.5000]])
        """
        shaped = lengths.reshape(-1, *(1,) * (current.ndim - 1))
        moved = self.into(torch.addcmul(current, self.direction(gradient), shaped), limits, epsilon)
        return moved if self.settled else torch.where(shaped > 0, moved, current)


def check_radii(name: str, radii: Sequence[float], ball: Ball) -> tuple[float, ...]:
    """The radii as floats, each finite, in the ball's range, and at most once.

    Raises:
        InputError: for a repeated radius, or one that is negative, too large or not a number.
    """
    values = tuple(float(radius) for radius in radii)
    unit = "L∞ radii in [0, 1] (pixels lie in [0, 1])" if ball is LINF else f"finite {ball.name} radii of at least 0"
    for value in values:
        if not (0.0 <= value <= ball.largest and value < torch.inf):  # false for NaN too
            raise InputError(f"{name}: expected {unit}, got {value}")
    if len(set(values)) < len(values):
        raise InputError(f"{name}: expected each radius once, got {list(values)}")
    return values


def _limits_linf(x: Tensor, epsilon: float) -> tuple[Tensor, ...]:
    return (x - epsilon).clamp_(min=0.0), (x + epsilon).clamp_(max=1.0)


def _into_linf(candidate: Tensor, limits: tuple[Tensor, ...], epsilon: float) -> Tensor:
    return torch.clamp(candidate, *limits)


def _surface_linf(x: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    corner = torch.rand(x.shape, generator=generator, device=x.device, dtype=x.dtype).sub_(0.5).sign_()
    return (x + epsilon * corner).clamp_(0.0, 1.0)


def _limits_l2(x: Tensor, epsilon: float) -> tuple[Tensor, ...]:
    return (x,)


def _into_l2(candidate: Tensor, limits: tuple[Tensor, ...], epsilon: float) -> Tensor:
    (x,) = limits
    # First into the box, then towards x, which is in it: what a saturated pixel cannot use is left to the others.
    change = candidate.clamp(0.0, 1.0) - x
    # The last rounding of x + change may leave [0, 1] by one unit in the last place.
    return (x + change * (epsilon / _norm(change).clamp_min(epsilon))).clamp_(0.0, 1.0)


def _surface_l2(x: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    return (x + epsilon * _direction_l2(noise)).clamp_(0.0, 1.0)


def _direction_l2(gradient: Tensor) -> Tensor:
    # Scaled by the largest entry first: squares of a small gradient would underflow, and a direction would be lost.
    peak = gradient.flatten(1).abs().amax(1).reshape(-1, *(1,) * (gradient.ndim - 1))
    scaled = gradient / torch.where(peak > 0, peak, 1.0)
    return scaled / torch.where(peak > 0, _norm(scaled), 1.0)


def _norm(change: Tensor) -> Tensor:
    """The L2 norm of each image, shaped to divide it by."""
    return change.flatten(1).norm(dim=1).reshape(-1, *(1,) * (change.ndim - 1))


LINF = Ball("Linf", "", 1.0, _limits_linf, _into_linf, True, _surface_linf, torch.sign)
L2 = Ball("L2", "_l2", torch.inf, _limits_l2, _into_l2, False, _surface_l2, _direction_l2)

#: The balls by the names of the command line.
BALLS: Mapping[str, Ball] = {"linf": LINF, "l2": L2}
