r"""Couplings: how an encoding :math:`z'` is tied to :math:`z`, leaving both marginals :math:`\mathcal N(0, I)`."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.errors import InputError

__all__ = ["Coupling", "FixedRho", "LearnedRho", "MatrixRho", "RhoLike", "as_coupling", "optimal_rho"]


class Coupling(nn.Module, ABC):
    r"""A conditional :math:`p_\rho(z'|z)` that leaves :math:`\mathcal N(0, I)` invariant.

    Attributes:
        latent_dim: the L that it fits, or None where it fits any; :func:`as_coupling` checks it.
    """

    latent_dim: int | None = None

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """Return the distribution of z' given ``z`` ``(..., L)``; its event shape is ``(L,)``."""


RhoLike = float | Sequence[float] | Tensor | str | Coupling


class FixedRho(Coupling):
    r"""The AR(1) coupling of the paper, :math:`p_\rho(z'|z) = \mathcal N(\rho z, (1-\rho^2) I)`.

    It is the conditional of the joint :math:`\mathcal N\big(0, \begin{pmatrix} I & \rho I\\ \rho I & I\end{pmatrix}
    \big)` (Cemgil et al. 2020, section 3). ``rho = 0`` makes z' independent of z; negative values are allowed.

    Args:
        rho: the correlation, one number or one per latent dimension ``(L,)``, each in (-1, 1).
        latent_dim: L.

    Raises:
        InputError: a value with ``|rho| >= 1``, NaN or infinite, or a shape that is neither ``()`` nor ``(L,)``.

    Example:
        >>> FixedRho(0.6, latent_dim=2)(torch.ones(1, 2)).base_dist.scale
        tensor([[0.8000, 0.8000]])
    """

    rho: float | Tensor

    def __init__(self, rho: float | Sequence[float] | Tensor, *, latent_dim: int) -> None:
        super().__init__()
        values = _checked_rho(rho, latent_dim)
        if values.dim() == 0:
            # A Python number is exact in every dtype that the latent may have.
            self.rho = float(values)
        else:
            self.register_buffer("rho", values)
            self.latent_dim = latent_dim

    def forward(self, z: Tensor) -> TorchDistribution:
        if isinstance(self.rho, float):
            scale = torch.full_like(z, math.sqrt((1 - self.rho) * (1 + self.rho)))
            return dist.Normal(self.rho * z, scale).to_event(1)
        # The scale first in the precision of rho: rho = 1 - 1e-9 is 1 in float32, its scale 4.5e-5 is not 0.
        scale = ((1 - self.rho) * (1 + self.rho)).sqrt().to(z.dtype)
        return dist.Normal(self.rho.to(z.dtype) * z, scale.expand_as(z)).to_event(1)


class LearnedRho(Coupling):
    r"""The AR(1) coupling with a trained correlation, :math:`\rho = c \tanh(r)`, :math:`c = 1 - 2^{-20}`.

    c keeps :math:`1 - \rho^2` positive in float32 however far :math:`r` runs. The bound can have two maxima in
    :math:`\rho` (see :func:`optimal_rho`): training ends in the basin of ``init``.

    Args:
        init: where training starts, one number or one per dimension, in (-1, 1).
        latent_dim: L.
        per_dimension: learn one correlation per latent dimension instead of one for all.
        dtype: of the parameter; by default that of ``init`` where it is a float tensor, else torch's default. A pair
            that is made and then turned ``.double()`` starts where float32 rounded ``init`` to.

    Raises:
        InputError: as :class:`FixedRho`, for ``init``.
    """

    _bound = 1 - 2.0**-20

    def __init__(
        self,
        init: float | Sequence[float] | Tensor = 0.9,
        *,
        latent_dim: int,
        per_dimension: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        values = _checked_rho(init, latent_dim, name="init")
        if per_dimension:
            values = values.expand(latent_dim).clone()
        if values.dim() == 1:
            self.latent_dim = latent_dim
        if dtype is None:
            given = init.dtype if isinstance(init, Tensor) else None
            dtype = given if given is not None and given.is_floating_point else torch.get_default_dtype()
        inside = (values.double() / self._bound).clamp(-1 + 1e-12, 1 - 1e-12)
        self.raw = nn.Parameter(torch.atanh(inside).to(dtype))

    @property
    def rho(self) -> Tensor:
        """The current correlation, ``()`` or ``(L,)``."""
        return self._bound * torch.tanh(self.raw)

    def forward(self, z: Tensor) -> TorchDistribution:
        rho = self.rho.to(z.dtype)
        return dist.Normal(rho * z, ((1 - rho) * (1 + rho)).sqrt().expand_as(z)).to_event(1)


class MatrixRho(Coupling):
    r"""The coupling :math:`\mathcal N(R z, I - R R^\top)` with a full matrix :math:`R`.

    With :math:`R = W^\top W (W^\top W + \nu I)^{-1}` it is the encode-decode kernel of probabilistic PCA under its
    exact posterior (``docs/maths.md``).

    Args:
        matrix: R, ``(L, L)``, with spectral norm below 1. It is copied and held constant: gradients do not run to what
            it was computed from.

    Raises:
        InputError: not square, not finite, or a spectral norm of 1 or more.
    """

    matrix: Tensor
    scale_tril: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InputError(f"rho: expected a square matrix (L, L), got shape {tuple(matrix.shape)}")
        matrix = matrix.detach().clone()
        norm = float(torch.linalg.matrix_norm(matrix, ord=2)) if bool(matrix.isfinite().all()) else math.nan
        if not norm < 1:
            raise InputError(f"rho: expected a finite matrix with spectral norm below 1, got norm {norm}")
        self.latent_dim = len(matrix)
        self.register_buffer("matrix", matrix)
        residual = torch.eye(len(matrix)).to(matrix) - matrix @ matrix.T
        self.register_buffer("scale_tril", torch.linalg.cholesky(residual))

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.MultivariateNormal(z @ self.matrix.to(z.dtype).T, scale_tril=self.scale_tril.to(z.dtype))


def as_coupling(rho: RhoLike, *, latent_dim: int) -> Coupling:
    """Make a coupling of what a user passes as ``rho``: a number, one per dimension, ``"learned"``, or a coupling.

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
        if rho != "learned":
            raise InputError(f"rho: expected a number in (-1, 1), one per dimension, or 'learned', got {rho!r}")
        return LearnedRho(latent_dim=latent_dim)
    return FixedRho(rho, latent_dim=latent_dim)


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


def _checked_rho(rho: float | Sequence[float] | Tensor, latent_dim: int, *, name: str = "rho") -> Tensor:
    """``rho`` as a tensor (float64 unless it came as one), or an error naming argument, value and what is allowed."""
    allowed = f"a number in (-1, 1) or one per latent dimension, shape ({latent_dim},)"
    if isinstance(rho, Tensor) and rho.requires_grad:
        raise InputError(f"{name}: expected {allowed}, got a tensor that requires grad; to learn it, pass 'learned'")
    try:
        given = torch.as_tensor(rho)
        # A copy: changing the user's tensor later does not change the coupling.
        values = rho.detach().clone() if isinstance(rho, Tensor) else torch.tensor(rho, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name}: expected {allowed}, got {rho!r}") from None
    if given.dtype is torch.bool or given.is_complex():
        raise InputError(f"{name}: expected {allowed}, got {given.tolist()} of dtype {given.dtype}")
    if values.shape not in ((), (latent_dim,)):
        raise InputError(f"{name}: expected {allowed}, got shape {tuple(values.shape)}: {_abbreviated(values)}")
    if not bool((values.abs() < 1).all()):
        raise InputError(f"{name}: expected {allowed}, got {values.tolist()}")
    return values


def _abbreviated(values: Tensor) -> str:
    """The values in one line, the first few of many."""
    flat = values.flatten().tolist()
    return str(flat) if len(flat) <= 8 else f"[{', '.join(map(str, flat[:8]))}, ...]"
