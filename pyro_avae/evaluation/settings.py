"""The options of an evaluation, checked before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pyro_avae.errors import InputError
from pyro_avae.evaluation.attacks import check_epsilons, check_pgd
from pyro_avae.evaluation.autoattack import require_torchattacks
from pyro_avae.evaluation.ball import L2, LINF, Ball, check_radii
from pyro_avae.evaluation.likelihood import MIN_PSIS_SAMPLES
from pyro_avae.evaluation.probe import FitProbe, fit_probe
from pyro_avae.evaluation.representation import REPRESENTATIONS

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["ATTACKS", "LIKELIHOOD_IMAGES", "EvaluationSettings", "Progress"]

#: The importance-weighted log-likelihood is estimated on this many of the first test images, if not told otherwise.
LIKELIHOOD_IMAGES = 500

#: ``(stage, images done, images in all)``, called as the evaluation goes.
Progress = Callable[[str, int, int], None]


def _nothing_more() -> None:
    """PGD is always run and needs nothing."""


#: The attacks by name, each with a check that it can run here. PGD is part of every one of them.
ATTACKS: Mapping[str, Callable[[], Any]] = {"pgd": _nothing_more, "autoattack": require_torchattacks}


@dataclass(frozen=True)
class EvaluationSettings:
    """The options of :func:`~pyro_avae.evaluation.evaluate`, which says what they mean.

    Raises:
        InputError: an option out of range.
    """

    epsilons: tuple[float, ...]
    epsilons_l2: tuple[float, ...]
    attack: str
    steps: int
    restarts: int
    masking_epsilon: float
    representation: str
    tasks: tuple[str, ...] | None
    limit: int | None
    batch_size: int
    num_importance_samples: int
    seed: int
    progress: Progress | None
    fit: FitProbe = fit_probe
    likelihood_images: int = LIKELIHOOD_IMAGES

    def __post_init__(self) -> None:
        object.__setattr__(self, "epsilons", check_epsilons(self.epsilons))
        object.__setattr__(self, "epsilons_l2", check_radii("epsilons_l2", self.epsilons_l2, L2))
        (masking_epsilon,) = check_radii("masking_epsilon", [self.masking_epsilon], LINF)
        object.__setattr__(self, "masking_epsilon", masking_epsilon)
        check_pgd(self.steps, self.restarts)
        for name, table in (("attack", ATTACKS), ("representation", REPRESENTATIONS)):
            value = getattr(self, name)
            if value not in table:
                raise InputError(f"{name}: expected one of {', '.join(table)}, got {value!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit: expected at least 1 test image, got {self.limit}")
        if self.likelihood_images < 1:
            raise InputError(f"likelihood_images: expected at least 1, got {self.likelihood_images}")
        if self.batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, got {self.batch_size}")
        if self.num_importance_samples < MIN_PSIS_SAMPLES:
            raise InputError(
                f"num_importance_samples: expected at least {MIN_PSIS_SAMPLES} (PSIS needs a tail), "
                f"got {self.num_importance_samples}"
            )
        ATTACKS[self.attack]()

    def balls(self) -> Iterator[tuple[Ball, tuple[float, ...]]]:
        """Each norm that has radii, with them."""
        for ball, radii in ((LINF, self.epsilons), (L2, self.epsilons_l2)):
            if radii:
                yield ball, radii

    def chosen(self, data: ImageData) -> dict[str, int]:
        """The tasks to evaluate, each with its number of classes.

        Raises:
            InputError: a task that the data do not have, or one named twice.
        """
        if self.tasks is None:
            return data.tasks
        for task in self.tasks:
            if task not in data.tasks:
                raise InputError(
                    f"tasks: expected some of {', '.join(data.tasks) or 'none (no labels)'} ({data.name}), got {task!r}"
                )
        if len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks: expected each task once, got {list(self.tasks)}")
        return {task: data.tasks[task] for task in self.tasks}

    def count(self, split: Split, limit: int | None = None) -> int:
        """How many images of ``split`` are used under the limit, and under another where one is given."""
        return min([len(split), *(bound for bound in (self.limit, limit) if bound is not None)])

    def stage(self, name: str) -> Callable[[int, int], None] | None:
        """The progress callback of one stage."""
        return None if self.progress is None else partial(self.progress, name)
