"""Training a pair by SVI: :func:`fit`, what it gives back, and what a caller may want to catch."""

from pyro_avae.errors import RankError
from pyro_avae.training.interrupt import Interrupted
from pyro_avae.training.loop import FitResult, fit, fit_seeds
from pyro_avae.training.non_finite import NonFiniteError

__all__ = ["FitResult", "Interrupted", "NonFiniteError", "RankError", "fit", "fit_seeds"]
