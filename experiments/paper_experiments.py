"""The experiments of the paper by name: data, tasks, radii, rows, published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyro_avae.errors import InputError, shown_value
from pyro_avae.experiments.density_rows import DENSITY_DATASETS, DENSITY_ROWS
from pyro_avae.experiments.paper import CELEBA, COLOR_MNIST, PaperRow
from pyro_avae.experiments.rows import CELEBA_ROWS, COLOR_ROWS, Row

__all__ = ["EXPERIMENTS", "Experiment"]


@dataclass(frozen=True)
class Experiment:
    """One table of the paper.

    Attributes:
        datasets: it can be run on; the published numbers are those of the first.
        rows: to train.
        published: rows of the paper, by the name of ours.
        epsilons: L∞ radii of the attack.
        tasks: to evaluate; None: all.
        fid_task: labels that a classifier learns, whose features measure the Fréchet distance.
        settings: that every preset has here.
    """

    datasets: Sequence[str]
    rows: Sequence[Row]
    published: Mapping[str, PaperRow]
    epsilons: Sequence[float]
    fid_task: str
    tasks: Sequence[str] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def paper(self, name: str, dataset: str) -> dict[str, Any] | None:
        """The published row, None where the paper has none."""
        row = self.published.get(name) if dataset == self.datasets[0] else None
        return None if row is None else row.to_json()

    def chosen(self, names: Sequence[str] | None) -> list[Row]:
        """The rows of some groups, or of some names, and those that they start from, in the table's order.

        Raises:
            InputError: neither a group nor a row.

        Example:
            >>> [row.name for row in EXPERIMENTS["color-mnist"].chosen(["avae-ss"])]
            ['vae', 'avae-ss']
        """
        if names is None:
            return list(self.rows)
        groups = list(dict.fromkeys(group for row in self.rows for group in row.groups))
        known = [*groups, *(row.name for row in self.rows)]
        for name in names:
            if name not in known:
                raise InputError(f"--rows: expected some of {', '.join(known)}, got {shown_value(name)}")
        wanted = {row.name for row in self.rows if {row.name, *row.groups} & set(names)}
        wanted |= {row.start_from for row in self.rows if row.name in wanted and row.start_from is not None}
        return [row for row in self.rows if row.name in wanted]


EXPERIMENTS: Mapping[str, Experiment] = {
    "color-mnist": Experiment(
        datasets=("color-mnist", "color-fashion-mnist", "color-digits"),
        rows=COLOR_ROWS,
        published=COLOR_MNIST,
        epsilons=(0.0, 0.1, 0.2),
        fid_task="digit",
    ),
    "celeba": Experiment(
        datasets=("celeba",),
        rows=CELEBA_ROWS,
        published=CELEBA,
        epsilons=(0.0, 0.1),
        fid_task="Smiling",
        tasks=("Bald", "Wearing_Necklace", "Mustache", "Eyeglasses", "Smiling", "Wearing_Lipstick"),
        settings={"image_shape": (3, 64, 64)},
    ),
    # Measured by DensityReproduction; its published numbers are in density_rows.py.
    "density": Experiment(
        datasets=DENSITY_DATASETS,
        rows=DENSITY_ROWS,
        published={},
        epsilons=(0.0,),
        fid_task="",
        tasks=(),
        settings={"image_shape": (1, 28, 28), "likelihood": "bernoulli"},
    ),
}
