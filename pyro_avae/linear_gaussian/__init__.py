"""Exact bounds and gradients for linear-Gaussian pairs, and the exact held against Monte Carlo."""

from pyro_avae.linear_gaussian.exact import exact_bound, exact_second_moment, exact_terms, verify_bound
from pyro_avae.linear_gaussian.verification import BoundCheck, CheckRow

__all__ = ["BoundCheck", "CheckRow", "exact_bound", "exact_second_moment", "exact_terms", "verify_bound"]
