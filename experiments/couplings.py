"""How a method ties the worst case's encoding to z, by the names that settings use."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyro_avae.coupling import PairwisePrior, RhoLike
from pyro_avae.experiments.parts import look_up
from pyro_avae.runs.settings import Settings

__all__ = ["SMOOTH_COUPLINGS", "SmoothCoupling", "smooth_coupling"]


@dataclass(frozen=True)
class SmoothCoupling:
    """The coupling of the target, made of settings, and the name of the guide's joint."""

    rho: Callable[[Settings], RhoLike]
    joint: str


SMOOTH_COUPLINGS: Mapping[str, SmoothCoupling] = {
    "factorised": SmoothCoupling(lambda s: s.rho, "factorised"),
    "optimal": SmoothCoupling(lambda s: s.rho, "optimal"),
    "pairwise": SmoothCoupling(lambda s: PairwisePrior(s.gamma), "optimal"),
}


def smooth_coupling(settings: Settings) -> SmoothCoupling:
    """The coupling that the settings name."""
    return look_up(SMOOTH_COUPLINGS, settings.coupling, setting="coupling")
