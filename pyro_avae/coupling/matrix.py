"""An autoregression with a full matrix."""

import math

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_avae.coupling.base import Coupling
from pyro_avae.errors import InputError

__all__ = ["MatrixRho"]


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
