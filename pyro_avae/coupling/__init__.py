"""Couplings: how an encoding z' is tied to z. All but one leave both marginals N(0, I)."""

from pyro_avae.coupling.base import Coupling
from pyro_avae.coupling.choice import RHO_WORDS, RhoLike, as_coupling
from pyro_avae.coupling.fixed import FixedRho
from pyro_avae.coupling.learned import LearnedRho
from pyro_avae.coupling.matrix import MatrixRho
from pyro_avae.coupling.natural import NaturalRho
from pyro_avae.coupling.optimum import optimal_rho
from pyro_avae.coupling.pairwise import PairwisePrior
from pyro_avae.coupling.pushed import PushedCoupling

__all__ = [
    "RHO_WORDS",
    "Coupling",
    "FixedRho",
    "LearnedRho",
    "MatrixRho",
    "NaturalRho",
    "PairwisePrior",
    "PushedCoupling",
    "RhoLike",
    "as_coupling",
    "optimal_rho",
]
