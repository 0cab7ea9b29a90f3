"""The rows that ``pyro-avae reproduce`` trains: a name, a method, and what differs from the preset's settings."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ABLATION", "CELEBA_ROWS", "COLOR_ROWS", "GROUPS", "SWEEP", "TABLE", "Row"]

#: The paper's rows and baselines; ρ from 0 to 0.999; view, gradient and input noise of the AVAE.
TABLE, SWEEP, ABLATION = "table", "sweep", "ablation"
GROUPS = (TABLE, SWEEP, ABLATION)


@dataclass(frozen=True)
class Row:
    """One row of the tables.

    Attributes:
        name: that of its folder, and what ``--rows`` takes.
        label: as a reader knows it.
        method: as on the command line.
        overrides: settings that differ from the preset's.
        groups: where it is shown.
        start_from: name of the row whose run of the same seed it starts from.
    """

    name: str
    label: str
    method: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    groups: Sequence[str] = (TABLE,)
    start_from: str | None = None


#: ρ = 0.975 is the row avae.
_RHOS = (0.0, 0.25, 0.5, 0.8, 0.9, 0.99, 0.999)

#: The noise that a sampled view has at ν = 0.5.
_NOISE = math.sqrt(0.5)

#: View, gradient and noise that are rows of the table already: the AVAE, and the method avae-mean.
_IN_THE_TABLE = (("sample", "through_z", 0.0), ("mean", "cut", 0.0))


def _ablation() -> list[Row]:
    """{sampled, mean view} x {through z, cut} x {no input noise, noise}, without what is in the table."""
    rows = []
    for view, gradient, noise in itertools.product(("sample", "mean"), ("through_z", "cut"), (0.0, _NOISE)):
        if (view, gradient, noise) not in _IN_THE_TABLE:
            words = [view, "through z" if gradient == "through_z" else "cut", *(["noisy input"] if noise else [])]
            name = "-".join([view, "through" if gradient == "through_z" else "cut", *(["noise"] if noise else [])])
            overrides = {"view": view, "gradient": gradient, "input_noise": noise}
            rows.append(Row(name, f"AVAE, {', '.join(words)}", "avae", overrides, (ABLATION,)))
    return rows


COLOR_ROWS: Sequence[Row] = (
    Row("vae", "VAE", "vae"),
    Row("se-0.1", "SE⁵ 0.1", "se", {"epsilon": 0.1, "attack_steps": 5}),
    Row("se-0.2", "SE⁵ 0.2", "se", {"epsilon": 0.2, "attack_steps": 5}),
    Row("avae", "AVAE", "avae", groups=GROUPS),
    Row("se-avae-0.1", "SE⁵-AVAE 0.1", "se-avae", {"epsilon": 0.1, "attack_steps": 5}),
    Row("se-avae-0.2", "SE⁵-AVAE 0.2", "se-avae", {"epsilon": 0.2, "attack_steps": 5}),
    Row("avae-ss", "AVAE-SS", "avae-ss", start_from="vae"),
    Row("noise-vae", "VAE, noisy input", "noise-vae"),
    Row("avae-mean", "AVAE, mean, cut", "avae-mean", groups=(TABLE, ABLATION)),
    Row("beta-vae", "β-VAE, β = 4", "beta-vae"),
    Row("avae-learned", "AVAE, ρ learned", "avae", {"rho": "learned"}),
    Row("avae-natural", "AVAE, ρ natural", "avae", {"rho": "natural"}),
    Row("se-optimal-0.1", "SE⁵ 0.1, optimal coupling", "se", {"epsilon": 0.1, "coupling": "optimal"}),
    Row("se-pairwise-0.1", "SE⁵ 0.1, pairwise prior", "se", {"epsilon": 0.1, "coupling": "pairwise"}),
    *(Row(f"rho-{rho:g}", f"AVAE, ρ = {rho:g}", "avae", {"rho": rho}, (SWEEP,)) for rho in _RHOS),
    *_ablation(),
)

CELEBA_ROWS: Sequence[Row] = (
    Row("vae", "VAE", "vae"),
    Row("avae", "AVAE", "avae"),
    Row("se-5", "SE⁵", "se", {"attack_steps": 5}),
    Row("se-20", "SE²⁰", "se", {"attack_steps": 20}),
    Row("se-avae-5", "SE⁵-AVAE", "se-avae", {"attack_steps": 5}),
    Row("avae-ss", "AVAE-SS", "avae-ss", start_from="vae"),
)
