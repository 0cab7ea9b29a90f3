"""Loss and each term of the bound over training, all runs together."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pyro_avae.report.runs import Run
from pyro_avae.report.style import Picture, dress, legend, line_style, new_figure, svg_picture

__all__ = ["training_curves"]

#: What is known of a logged quantity; one that is not listed has its own name as its title.
_TITLES = {
    "loss": "loss = −bound",
    "x": "x: E log p(x | z)",
    "z": "z: −KL(q(z | x) ‖ p(z))",
    "x_aux_entropy": "x_aux_entropy: H[p(x̃ | z)], no part of the loss",
    "z_aux": "z_aux: −E KL(q(z′ | x̃) ‖ p(z′ | z))",
}
#: Everything else is in nats per image.
_UNITS = {"rho": "correlation", "obs_variance": "variance of a pixel"}
#: The first part of training is off any scale that shows the rest.
_BURN_IN = 0.05


def training_curves(runs: Sequence[Run]) -> Picture | None:
    """One panel a quantity; None where nothing was logged."""
    logged = [(number, run) for number, run in enumerate(runs) if run.log]
    names = _names([run for _, run in logged])
    if not names:
        return None
    columns = min(2, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = new_figure(rows, columns, width=4.6 * columns, height=2.5 * rows + 0.4)
    handles: dict[int, Any] = {}
    for panel, name in zip(axes, names, strict=False):
        for number, run in logged:
            steps, values = _series(run, name)
            if len(steps):
                style = {**line_style(number), "marker": "." if len(steps) == 1 else None}
                (handles[number],) = panel.plot(steps, values, linewidth=1.4, **style)
        dress(panel, title=_TITLES.get(name, name), xlabel="step", ylabel=_UNITS.get(name, "nats per image"))
        _zoom(panel, [_series(run, name) for _, run in logged])
    for panel in axes[len(names) :]:
        panel.set_visible(False)
    legend(figure, list(handles.values()), [runs[number].label for number in handles])
    return svg_picture(figure, _alt([run for _, run in logged], names))


def _names(runs: Sequence[Run]) -> list[str]:
    """The loss and every term that any run logged, the loss first."""
    names = {name for run in runs for row in run.log for name in row} - {"step"}
    names = {name for name in names if name == "loss" or _changes(runs, name)}
    return sorted(names, key=lambda name: (name != "loss", name in _UNITS, name))


def _changes(runs: Sequence[Run], name: str) -> bool:
    """Whether a quantity moves in any run: the entropy of x̃ under a fixed variance, say, is one number throughout."""
    series = [_series(run, name)[1] for run in runs]
    return any(len(values) == 1 or not np.allclose(values, values[0], rtol=1e-6) for values in series if len(values))


def _series(run: Run, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and finite values of one logged quantity."""
    points = [(row["step"], row[name]) for row in run.log if name in row and math.isfinite(row[name])]
    array = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _zoom(panel: Any, series: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Scale the vertical axis to what comes after the first part of training."""
    kept = [values[steps >= _BURN_IN * steps[-1]] for steps, values in series if len(steps)]
    values = np.concatenate(kept) if kept else np.zeros(0)
    if len(values) < 2:
        return
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low)
    if margin > 0:
        panel.set_ylim(low - margin, high + margin)


def _alt(runs: Sequence[Run], names: Sequence[str]) -> str:
    ends = []
    for run in runs:
        _, losses = _series(run, "loss")
        if len(losses):
            ends.append(f"{run.label} ends at a loss of {losses[-1]:.1f}")
    return f"Training curves of {', '.join(names)} in nats per image over steps. {'; '.join(ends)}."
