"""The distance of two Gaussians against one computed with matrix square roots."""

import numpy as np
import pyro.distributions as dist
import pytest
import scipy.linalg
import torch

from pyro_avae.errors import InputError
from pyro_avae.wasserstein import squared_wasserstein

F64 = torch.float64


def by_hand(mean, cov, mean_2, cov_2):
    root = scipy.linalg.sqrtm(cov)
    overlap = np.real(scipy.linalg.sqrtm(root @ cov_2 @ root))
    return float(np.sum((mean - mean_2) ** 2) + np.trace(cov + cov_2 - 2 * overlap))


def test_full_and_diagonal_covariances():
    generator = torch.Generator().manual_seed(0)
    mean, mean_2 = torch.randn(2, 3, dtype=F64, generator=generator)
    factors = torch.randn(2, 3, 3, dtype=F64, generator=generator).tril(-1) + torch.diag_embed(
        torch.rand(2, 3, dtype=F64, generator=generator) + 0.3
    )
    covs = factors @ factors.mT
    full = squared_wasserstein(
        *(dist.MultivariateNormal(m, scale_tril=f) for m, f in zip((mean, mean_2), factors, strict=False))
    )
    assert float(full) == pytest.approx(
        by_hand(mean.numpy(), covs[0].numpy(), mean_2.numpy(), covs[1].numpy()), rel=1e-9
    )
    scales = factors.diagonal(dim1=-2, dim2=-1)
    diagonal = squared_wasserstein(
        *(dist.Normal(m, s).to_event(1) for m, s in zip((mean, mean_2), scales, strict=False))
    )
    cov, cov_2 = (np.diag(s.numpy() ** 2) for s in scales)
    assert float(diagonal) == pytest.approx(by_hand(mean.numpy(), cov, mean_2.numpy(), cov_2), rel=1e-9)


def test_another_family_is_refused():
    with pytest.raises(InputError, match="expected two Normal or two MultivariateNormal, got Normal and Bernoulli"):
        squared_wasserstein(dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.Bernoulli(torch.ones(2)).to_event(1))
