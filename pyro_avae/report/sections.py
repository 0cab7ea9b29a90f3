"""The pictures of one data set: everything that needs the trained pairs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pyro_avae.report.adversarial import AttackedImage, AttackedRow, attacked_row, clean_images, shown_epsilon
from pyro_avae.report.chain_rows import CHAINS, DRAWS, ChainRow, chain_row
from pyro_avae.report.iterated import IteratedGrid, Kept, iterated_grid, kept_class, kept_curves
from pyro_avae.report.reconstructions import Strip, reconstruction_strips
from pyro_avae.report.style import Picture
from pyro_avae.report.subjects import Subject
from pyro_avae.report.tables import percent

__all__ = ["AttackedTask", "Section", "sections_of"]

#: Tasks shown in pictures; CelebA has forty.
_TASKS = 3


@dataclass(frozen=True)
class AttackedTask:
    """One task's examples: the images before, and a row a run after the attack."""

    task: str
    epsilon: str
    clean: Sequence[AttackedImage]
    rows: Sequence[AttackedRow]


@dataclass(frozen=True)
class Section:
    """All pictures of one data set."""

    dataset: str
    tasks: Sequence[str]
    all_tasks: int
    strips: Sequence[Strip]
    grids: Sequence[IteratedGrid]
    kept: Picture | None
    kept_words: Sequence[str]
    chain: Sequence[ChainRow]
    chains: int
    draws: int
    attacked: Sequence[AttackedTask]


def sections_of(dataset: str, subjects: Sequence[Subject], say: Callable[[str], None]) -> Section:
    """Make the pictures of the pairs trained on one data set."""
    data = subjects[0].data
    tasks = list(data.tasks)[:_TASKS]
    say("reconstructions")
    strips = reconstruction_strips(subjects)
    grids = [iterated_grid(subject) for subject in subjects]
    say("iterated chain")
    kept = [kept_class(subject, task) for task in tasks for subject in subjects]
    rows = [chain_row(subject) for subject in subjects]
    say("adversarial examples")
    return Section(
        dataset=dataset,
        tasks=tasks,
        all_tasks=len(data.tasks),
        strips=strips,
        grids=grids,
        kept=kept_curves(kept) if kept else None,
        kept_words=[_kept_words(task, [one for one in kept if one.task == task]) for task in tasks],
        chain=rows,
        chains=CHAINS,
        draws=DRAWS,
        attacked=[_attacked(task, subjects) for task in tasks],
    )


def _kept_words(task: str, kept: Sequence[Kept]) -> str:
    """What is left after the last pass, in words."""
    shares = ", ".join(f"{one.subject.run.label} {percent(float(one.share[-1]))} %" for one in kept)
    return f"Still the same {task} after {len(kept[0].share) - 1} passes, of {kept[0].images} images: {shares}."


def _attacked(task: str, subjects: Sequence[Subject]) -> AttackedTask:
    epsilon = shown_epsilon(subjects[0].run.evaluation)
    rows = [attacked_row(subject, task, epsilon=epsilon) for subject in subjects]
    return AttackedTask(task, f"{epsilon:g}", clean_images(subjects[0], task), rows)
