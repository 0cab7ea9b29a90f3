r"""What the accuracies say, in words: gain, loss, or no difference.

Two accuracies p and p' over n and n' test images differ where

.. math:: |p' - p| > 2 \sqrt{p(1-p)/n + p'(1-p')/n'},

two binomial standard errors of the difference of independent samples. Runs are measured on the same images, so that
this is on the careful side; the spread from one training seed to the next is not in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pyro_avae.report.runs import Run

__all__ = ["Difference", "Finding", "difference", "findings"]


@dataclass(frozen=True)
class Difference:
    """Accuracy of one run against another's at one radius, all in [0, 1].

    Attributes:
        epsilon: the radius, as ``evaluation.json`` writes it.
        before: the accuracy compared with.
        after: the accuracy.
        error: one standard error of ``after - before``.
    """

    epsilon: str
    before: float
    after: float
    error: float

    @property
    def verdict(self) -> str:
        """``"gain"``, ``"loss"`` or ``"no difference"``."""
        if abs(self.after - self.before) <= 2 * self.error:
            return "no difference"
        return "gain" if self.after > self.before else "loss"


def difference(epsilon: str, before: float, after: float, *, images_before: int, images_after: int) -> Difference:
    """Compare two accuracies.

    Example:
        >>> difference("0.1", 0.16, 0.95, images_before=360, images_after=360).verdict
        'gain'
        >>> difference("0.1", 0.90, 0.91, images_before=360, images_after=360).verdict
        'no difference'
    """
    variance = before * (1 - before) / images_before + after * (1 - after) / images_after
    return Difference(epsilon, before, after, math.sqrt(variance))


@dataclass(frozen=True)
class Finding:
    """One run against the reference on one task.

    Attributes:
        run: label of the run.
        reference: label of the run it is compared with.
        task: the task.
        differences: one per radius that both were attacked at.
        majority: accuracy of always saying the most frequent class, None where it is not known.
    """

    run: str
    reference: str
    task: str
    differences: tuple[Difference, ...]
    majority: float | None = None

    @property
    def verdict(self) -> str:
        """The verdict over the attacked radii (ε > 0): the one they share, else ``"mixed"``."""
        verdicts = {d.verdict for d in self.differences if float(d.epsilon) > 0} - {"no difference"}
        if not verdicts:
            return "no difference"
        return verdicts.pop() if len(verdicts) == 1 else "mixed"

    @property
    def sentence(self) -> str:
        """The finding in words, from its numbers alone."""
        clauses = [
            f"{_VERBS[verdict]} {_listed([_at(d) for d in self.differences if d.verdict == verdict])}"
            for verdict in _VERBS
            if any(d.verdict == verdict for d in self.differences)
        ]
        return f"{self.task}: against {self.reference}, {self.run} {'; it '.join(clauses)}.{self._below_guessing}"

    @property
    def _below_guessing(self) -> str:
        """The radii at which a run that may have gained is still no better than a guess."""
        if self.majority is None:
            return ""
        radii = [f"ε = {float(d.epsilon):g}" for d in self.differences if d.after <= self.majority]
        if not radii:
            return ""
        return (
            f" At {_listed(radii)} it is no better than always saying the most frequent class ({_cent(self.majority)})."
        )


_VERBS = {
    "gain": "gains",
    "loss": "loses",
    "no difference": "shows no difference beyond two standard errors",
}


def _at(d: Difference) -> str:
    return f"at ε = {float(d.epsilon):g} ({_cent(d.before)} → {_cent(d.after)})"


def _cent(share: float) -> str:
    # No line break between a number and its sign.
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def findings(runs: Sequence[Run]) -> list[Finding]:
    """Every evaluated run against the first evaluated run on its data set, task by task."""
    found = []
    references: dict[str, Run] = {}
    for run in runs:
        if run.evaluation is None:
            continue
        reference = references.setdefault(run.dataset, run)
        if reference is not run:
            found += [_finding(run, reference, task) for task in run.tasks if task in reference.tasks]
    return [finding for finding in found if finding.differences]


def _finding(run: Run, reference: Run, task: str) -> Finding:
    before, after = reference.tasks[task]["accuracy"], run.tasks[task]["accuracy"]
    differences = [
        difference(
            epsilon,
            before[epsilon],
            after[epsilon],
            images_before=_images(reference),
            images_after=_images(run),
        )
        for epsilon in sorted(before, key=float)
        if epsilon in after
    ]
    return Finding(run.label, reference.label, task, tuple(differences), run.tasks[task].get("majority"))


def _images(run: Run) -> int:
    """Test images behind a run's accuracies."""
    evaluation = run.evaluation or {}
    return max(1, int(evaluation.get("num_test_images", 1)))
