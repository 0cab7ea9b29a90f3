"""A coupling of what a user passes as ``rho``."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from torch import Tensor

from pyro_avae.coupling.base import Coupling
from pyro_avae.coupling.fixed import FixedRho
from pyro_avae.coupling.learned import LearnedRho
from pyro_avae.coupling.natural import NaturalRho
from pyro_avae.errors import InputError

__all__ = ["RHO_WORDS", "RhoLike", "as_coupling"]

RhoLike = float | Sequence[float] | Tensor | str | Coupling

#: The couplings that have a word for ``rho``.
RHO_WORDS: Mapping[str, Callable[..., Coupling]] = {
    "learned": LearnedRho,
    "learned-per-dimension": partial(LearnedRho, per_dimension=True),
    "natural": NaturalRho,
}


def as_coupling(rho: RhoLike, *, latent_dim: int) -> Coupling:
    """Make a coupling of what a user passes as ``rho``.

    Args:
        rho: a number in (-1, 1), one per dimension, ``"learned"`` (one for all dimensions),
            ``"learned-per-dimension"``, ``"natural"`` (see :class:`NaturalRho`), or a coupling, which is returned.
        latent_dim: L.

    Raises:
        InputError: a value that is none of these, or not allowed by :class:`FixedRho`; a coupling of another L.
    """
    if isinstance(rho, Coupling):
        if rho.latent_dim not in (None, latent_dim):
            raise InputError(
                f"rho: expected a coupling of latent_dim={latent_dim}, got a {type(rho).__name__} of"
                f" latent_dim={rho.latent_dim}"
            )
        return rho
    if isinstance(rho, str):
        if rho not in RHO_WORDS:
            words = ", ".join(map(repr, RHO_WORDS))
            raise InputError(f"rho: expected a number in (-1, 1), one per dimension, or one of {words}, got {rho!r}")
        return RHO_WORDS[rho](latent_dim=latent_dim)
    return FixedRho(rho, latent_dim=latent_dim)
