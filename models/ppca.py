"""Probabilistic principal component analysis: the VAE whose every quantity has a closed form."""

from typing import NamedTuple, cast

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.models.likelihoods import Gaussian
from pyro_avae.models.vae import VAE

__all__ = ["PPCA", "AffinePosterior"]


class AffinePosterior(NamedTuple):
    """N(gain x + bias, S): gain ``(L, D)``, bias ``(L,)``, scale_tril ``(L, L)`` Cholesky factor of S."""

    gain: Tensor
    bias: Tensor
    scale_tril: Tensor


class PPCA(VAE):
    r"""Probabilistic PCA, :math:`x = Wz + \mu + \sqrt\nu\,\epsilon`, as a Pyro model.

    ::

        z ~ N(0, I)                # site "z", (B, L)
        x ~ N(W z + mean, nu I)    # site "x", (B, D), observed

    Its log evidence is that of :math:`\mathcal N(\mu, WW^\top + \nu I)`; its posterior is
    :math:`\mathcal N(K(x-\mu), S)`, :math:`S = (I + W^\top W/\nu)^{-1}`, :math:`K = S W^\top/\nu`.

    Args:
        weight: W, ``(D, L)`` with L < D.
        mean: :math:`\mu`, ``(D,)``; zero if not given.
        obs_variance: :math:`\nu`, a positive number.
        learned_variance: train :math:`\nu` along with W and the mean.

    Raises:
        InputError: L >= D, shapes that do not fit, or a variance that is not positive.

    References:
        Tipping & Bishop: Probabilistic Principal Component Analysis, JRSS B 61, 1999.

    Example:
        >>> ppca = PPCA(torch.tensor([[1.0], [0.0]]), obs_variance=1.0)
        >>> ppca.log_evidence(torch.zeros(1, 2)).detach()
        tensor([-2.1845])
    """

    def __init__(
        self,
        weight: Tensor,
        *,
        mean: Tensor | None = None,
        obs_variance: float,
        learned_variance: bool = False,
    ) -> None:
        if weight.dim() != 2 or weight.shape[1] >= weight.shape[0] or weight.shape[1] < 1:
            raise InputError(f"weight: expected shape (D, L) with 1 <= L < D, got {tuple(weight.shape)}")
        data_dim, latent_dim = weight.shape
        if mean is not None and mean.shape != (data_dim,):
            raise InputError(f"mean: expected shape ({data_dim},), got {tuple(mean.shape)}")
        decoder = nn.Linear(latent_dim, data_dim).to(weight)
        with torch.no_grad():
            decoder.weight.copy_(weight)
            decoder.bias.copy_(torch.zeros(data_dim) if mean is None else mean)
        likelihood = Gaussian(obs_variance=obs_variance, learned=learned_variance, dtype=weight.dtype).to(weight)
        super().__init__(decoder, latent_dim=latent_dim, likelihood=likelihood)

    @classmethod
    def fit(cls, x: Tensor, latent_dim: int) -> "PPCA":
        r"""Return the maximum-likelihood solution for the data ``x`` ``(N, D)``.

        With :math:`\Lambda, U` the eigenvalues (descending) and eigenvectors of the sample covariance,
        :math:`\nu` is the mean of the D - L smallest eigenvalues and :math:`W = U_L(\Lambda_L - \nu I)^{1/2}`
        (Tipping & Bishop 1999, eqs. 7 and 8, rotation R = I). Computed in float64, given in the dtype of ``x``.

        Raises:
            InputError: ``latent_dim`` not in 1..D-1, x not a finite ``(N, D)``, or data that lie in an L-dimensional
                subspace, for which the likelihood is unbounded.
        """
        if x.dim() != 2 or len(x) < 2 or not x.is_floating_point() or not bool(x.isfinite().all()):
            raise InputError(
                f"x: expected finite floating-point data of shape (N, D) with N >= 2, got shape {tuple(x.shape)} of"
                f" {x.dtype}"
            )
        data_dim = x.shape[1]
        if not 1 <= latent_dim < data_dim:
            raise InputError(f"latent_dim: expected 1 <= L < D = {data_dim}, got {latent_dim}")
        data = x.detach().double()
        mean = data.mean(0)
        centred = data - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(data))
        values, vectors = values.flip(0), vectors.flip(1)
        obs_variance = float(values[latent_dim:].mean())
        if not obs_variance > float(values[0]) * data_dim * torch.finfo(torch.float64).eps:
            raise InputError(
                f"x: its variance outside {latent_dim} directions is zero, so the likelihood is unbounded; use a"
                " smaller latent_dim"
            )
        weight = vectors[:, :latent_dim] * (values[:latent_dim] - obs_variance).clamp_min(0).sqrt()
        return cls(weight.to(x.dtype), mean=mean.to(x.dtype), obs_variance=obs_variance)

    @property
    def weight(self) -> Tensor:
        """W, ``(D, L)``."""
        return cast(Tensor, self.observation.decoder.weight)

    @property
    def mean(self) -> Tensor:
        r""":math:`\mu`, ``(D,)``."""
        return cast(Tensor, self.observation.decoder.bias)

    @property
    def obs_variance(self) -> Tensor:
        r""":math:`\nu`, 0-d."""
        likelihood = self.observation.likelihood
        assert isinstance(likelihood, Gaussian)  # set by this class's own constructor
        return torch.as_tensor(likelihood.obs_variance, dtype=self.weight.dtype, device=self.weight.device)

    def log_evidence(self, x: Tensor) -> Tensor:
        """The exact log p(x) of each row of ``x`` ``(B, D)``, in nats, ``(B,)``."""
        eye = torch.eye(len(self.weight)).to(self.weight)
        covariance = self.weight @ self.weight.T + self.obs_variance * eye
        log_prob: Tensor = dist.MultivariateNormal(self.mean, covariance_matrix=covariance).log_prob(x)
        return log_prob

    def posterior_covariance(self) -> Tensor:
        r""":math:`S = (I + W^\top W/\nu)^{-1}`, ``(L, L)``."""
        precision = self.weight.T @ self.weight / self.obs_variance
        return torch.linalg.inv(torch.eye(self.latent_dim).to(precision) + precision)

    def posterior_map(self) -> AffinePosterior:
        """The exact posterior as an affine map of x: what a linear encoder would have to be."""
        covariance = self.posterior_covariance()
        gain = covariance @ self.weight.T / self.obs_variance
        return AffinePosterior(gain, -gain @ self.mean, torch.linalg.cholesky(covariance))

    def posterior(self, x: Tensor) -> TorchDistribution:
        """The exact p(z|x) for ``x`` ``(B, D)``: batch shape ``(B,)``, event shape ``(L,)``."""
        gain, bias, scale_tril = self.posterior_map()
        return dist.MultivariateNormal(x @ gain.T + bias, scale_tril=scale_tril)

    def natural_rho(self) -> Tensor:
        r"""The matrix coupling of the exact encode-decode kernel.

        Decoding with noise and encoding with the exact posterior moves z to
        :math:`\mathcal N(Rz, I - R R^\top)` with :math:`R = W^\top W(W^\top W + \nu I)^{-1} = I - S`, eigenvalues
        :math:`\lambda_i/(\lambda_i + \nu)`; it tends to the identity as :math:`\nu \to 0` for W of full column rank.
        """
        return torch.eye(self.latent_dim).to(self.weight) - self.posterior_covariance()
