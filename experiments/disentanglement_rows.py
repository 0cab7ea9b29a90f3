"""The rows of the JL1 comparison on the three dots, how large it is made, and what the authors measured."""

from collections.abc import Mapping
from typing import Any

from pyro_avae.experiments.presets import Preset
from pyro_avae.experiments.rows import Row

__all__ = ["PRESETS", "PUBLISHED", "ROWS", "WARM_UP"]

_GAMMAS = (0.05, 0.1, 0.2, 0.4)

#: The authors differentiate by forward differences of this step.
_STEP = 0.001

ROWS = (
    Row("beta-vae", "β-VAE, β = 4", "beta-vae"),
    *(
        Row(f"jl1-{gamma:g}", f"JL1-VAE, γ = {gamma:g}", "beta-vae", {"jacobian_l1": gamma, "jacobian_step": _STEP})
        for gamma in _GAMMAS
    ),
)

#: Share of the steps over which β and γ rise from 0.
WARM_UP = 1 / 3

PRESETS: Mapping[str, Preset] = {
    # Shows that every row trains and is measured; its numbers mean nothing.
    "smoke": Preset(
        settings={"architecture": "conv", "channels": 4, "steps": 12, "lr": 1e-3, "batch_size": 8, "log_every": 4},
        seeds=1,
        evaluation={"clusters": 2, "samples": 200, "limit": 40, "num_importance_samples": 30},
        limit=200,
    ),
    # Narrow convolutions, few steps at ten times the learning rate: half an hour a row on one core.
    "cpu": Preset(
        settings={
            "architecture": "conv",
            "channels": 8,
            "steps": 6000,
            "lr": 1e-3,
            "batch_size": 32,
            # Compiling the step takes longer than it saves here.
            "compile": False,
        },
        seeds=1,
        evaluation={"clusters": 10, "samples": 10_000, "limit": 1000},
    ),
    # The authors' steps, batch, rate and networks; see docs/disentanglement.md on what still differs.
    "full": Preset(
        settings={"steps": 300_000, "lr": 1e-4, "batch_size": 64},
        seeds=10,
        evaluation={"clusters": 20, "samples": 10_000, "limit": None},
    ),
}

_RHOS = ("0.1", "0.2", "0.3", "0.6", "1.0")


def _at(*values: float) -> dict[str, float]:
    return dict(zip(_RHOS, values, strict=False))


#: Means over ten seeds by row, measure and rho, after 300,000 batches of 64; as read off the authors' figures, to about
#: 0.002, and those of γ = 0.2 and 0.4 to 0.01.
#:
#: Source: Rhodes and Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*,
#: NeurIPS 2021 (arXiv 2106.02923); notebooks of travers-rhodes/jlonevae.
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "beta-vae": {
        "mig": _at(0.054, 0.035, 0.023, 0.010, 0.005),
        "modularity": _at(0.888, 0.864, 0.827, 0.715, 0.44),
    },
    "jl1-0.05": {"mig": _at(0.112), "modularity": {}},
    "jl1-0.1": {
        "mig": _at(0.125, 0.072, 0.049, 0.019, 0.006),
        "modularity": _at(0.940, 0.913, 0.895, 0.796, 0.455),
    },
    "jl1-0.2": {"mig": _at(0.13), "modularity": {}},
    "jl1-0.4": {"mig": _at(0.13), "modularity": {}},
}
