"""Accuracy over the attack's radius, a panel a task, all runs together."""

import math
from collections.abc import Sequence

from pyro_avae.report.radius_curves import RadiusCurve, Shares, radius_curves
from pyro_avae.report.runs import Run
from pyro_avae.report.style import Picture

__all__ = ["robustness_curves"]


def robustness_curves(runs: Sequence[Run]) -> Picture | None:
    """PGD's accuracies with bars of two binomial standard errors; AutoAttack's, where it ran, as hollow marks.

    None where no run was evaluated on a task.
    """
    evaluated = [run for run in runs if run.tasks]
    several = len({run.dataset for run in evaluated}) > 1
    majority: dict[str, float] = {}
    for run in evaluated:
        for task, measured in run.tasks.items():
            share = measured.get("majority")
            if isinstance(share, int | float):
                panel = _panel(run, task, several=several)
                majority[panel] = max(share, majority.get(panel, 0.0))
    curves = [_curve(run, several=several) for run in runs]
    return radius_curves(curves, majority=majority, beside="AutoAttack", joined=True)


def _panel(run: Run, task: str, *, several: bool) -> str:
    """The title of a task, with its data set where there is more than one."""
    return f"{run.dataset}: {task}" if several else task


def _curve(run: Run, *, several: bool) -> RadiusCurve:
    def of(kind: str) -> Shares:
        return {_panel(run, task, several=several): measured.get(kind, {}) for task, measured in run.tasks.items()}

    images = max(1, int((run.evaluation or {}).get("num_test_images", 1)))
    accuracy = of("accuracy")
    bars = {
        panel: {radius: 2 * math.sqrt(share * (1 - share) / images) for radius, share in shares.items()}
        for panel, shares in accuracy.items()
    }
    return RadiusCurve(run.label, accuracy, bars, of("accuracy_autoattack"))
