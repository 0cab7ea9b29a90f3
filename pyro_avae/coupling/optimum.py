"""The correlation that a pair's moments ask for."""

import math

import numpy as np

from pyro_avae.errors import InputError

__all__ = ["optimal_rho"]


def optimal_rho(second_moment_aux: float, cross_moment: float, second_moment: float, *, latent_dim: int = 1) -> float:
    r"""The correlation with the smallest expected consistency loss, given a pair's moments.

    With :math:`A = \mathbb E\|z'\|^2`, :math:`B = \mathbb E\, z'^\top z`, :math:`C = \mathbb E\|z\|^2` the loss is

    .. math:: \tfrac L2 \log(1-\rho^2) + \frac{A - 2\rho B + \rho^2 C}{2(1-\rho^2)},

    and its stationary points are the roots in (-1, 1) of
    :math:`L\rho^3 - B\rho^2 + (A + C - L)\rho - B = 0`. There can be three; the one with the smallest loss is returned.
    There is one whenever :math:`2|B| < A + C`. Moments have :math:`2|B| \le 2\sqrt{AC} \le A + C`, with equality in
    both only where :math:`z' = z` or :math:`z' = -z` almost surely: then the loss falls without end as
    :math:`|\rho| \to 1`.

    Args:
        second_moment_aux: A.
        cross_moment: B.
        second_moment: C.
        latent_dim: L; 1 for one dimension of a per-dimension correlation.

    Raises:
        InputError: no minimum inside (-1, 1), :math:`2|B| \ge A + C`; a negative A or C; a number that is not finite.

    Example:
        >>> round(optimal_rho(1.0, 0.8, 1.0), 6)
        0.8
    """
    a, b, c, size = second_moment_aux, cross_moment, second_moment, latent_dim
    if not all(map(math.isfinite, (a, b, c))) or min(a, c) < 0 or 2 * abs(b) >= a + c:
        raise InputError(
            f"moments: expected A, C >= 0 and 2|B| < A + C, got A={a}, B={b}, C={c}; the loss has no minimum inside"
            " (-1, 1)"
        )
    roots = np.roots([size, -b, a + c - size, -b])
    real = [float(r.real) for r in roots if abs(r.imag) < 1e-9 * (1 + abs(r)) and abs(r.real) < 1]

    def loss(rho: float) -> float:
        rest = 1 - rho * rho
        return 0.5 * size * math.log(rest) + (a - 2 * rho * b + rho * rho * c) / (2 * rest)

    # A root nearer to the edge than a rounding may come out beyond it.
    return min(real or [math.copysign(math.nextafter(1.0, 0.0), b)], key=loss)
