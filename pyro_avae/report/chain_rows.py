"""The encode-decode chain started from the prior: does it move as ρ says, and does it leave the prior alone?"""

from dataclasses import dataclass

import numpy as np

from pyro_avae.chain import run_chain, summarize_chain
from pyro_avae.report.subjects import Subject
from pyro_avae.report.tables import number

__all__ = ["CHAINS", "DRAWS", "ChainRow", "chain_row"]

CHAINS = 8
DRAWS = 500


@dataclass(frozen=True)
class ChainRow:
    """What one pair's chain says, as printed; ranges run over latent dimensions."""

    label: str
    rho: str
    lag1: str
    lag1_range: str
    variance: str
    variance_range: str
    ess: str
    r_hat: str


def chain_row(subject: Subject, *, seed: int = 0) -> ChainRow:
    """Run :data:`CHAINS` chains from N(0, I) for :data:`DRAWS` steps each, with the decoder's noise."""
    chain = run_chain(subject.model, subject.guide, num_chains=CHAINS, num_draws=DRAWS, seed=seed)
    summary = summarize_chain(chain, rho=getattr(getattr(subject.model, "coupling", None), "rho", None))
    return ChainRow(
        label=subject.run.label,
        rho="none" if summary.rho is None else _span(summary.rho, 3),
        lag1=number(summary.lag1_pooled, 3),
        lag1_range=_span(summary.lag1, 3),
        variance=number(float(np.mean(summary.variance)), 2),
        variance_range=_span(summary.variance, 2),
        ess=number(float(np.nanmedian(summary.ess)), 0),
        r_hat=number(float(np.nanmax(summary.r_hat)), 3),
    )


def _span(values: np.ndarray, digits: int) -> str:
    """``lowest … highest``, or the one number there is."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "–"
    low, high = (number(float(end), digits) for end in (finite.min(), finite.max()))
    return low if low == high else f"{low} … {high}"
