"""A small pair, really trained on the coloured digits, and a linear-Gaussian pair with an exact posterior."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch

from pyro_avae import elbo
from pyro_avae.data import ImageData, load_dataset
from pyro_avae.evaluation import Classifier, encode_split, fit_probe
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder, MLPEncoder
from pyro_avae.models import PPCA, ExtendedVAE, MLPDecoder


class Trained(NamedTuple):
    model: ExtendedVAE
    guide: AVAEGuide
    data: ImageData


@pytest.fixture(scope="session")
def trained() -> Trained:
    """An AVAE with a small MLP after 300 steps on the embedded data; read it, do not train it further."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        data = load_dataset("color-digits")
        model = ExtendedVAE(MLPDecoder(8, data.shape, hidden=[64, 64]), latent_dim=8, rho=0.9, obs_variance=0.1)
        guide = AVAEGuide(MLPEncoder(data.shape, 8, hidden=[64, 64]), model)
        loss = elbo.AVAE_ELBO()(model, guide)
        optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=2e-3)
        generator = torch.Generator().manual_seed(0)
        for _ in range(300):
            x, _ = data.train.batch(torch.randint(len(data.train), (64,), generator=generator), generator)
            optimizer.zero_grad()
            (loss(x) / len(x)).backward()
            optimizer.step()
        optimizer.zero_grad()
    return Trained(model, guide, data)


@pytest.fixture(scope="session")
def digit_classifier(trained: Trained) -> Classifier:
    """The trained encoder with a probe for the digit."""
    with torch.no_grad():
        features, labels = encode_split(trained.guide, trained.data.train)
    return Classifier(trained.guide, fit_probe(features, labels["digit"], 10))


@pytest.fixture
def exact_pair() -> Callable[..., tuple[PPCA, AmortizedGuide]]:
    """``(data_dim, latent_dim, seed)`` to PPCA in float64 and a guide that is its exact posterior."""

    def make(
        data_dim: int, latent_dim: int, *, seed: int = 0, obs_variance: float = 0.3
    ) -> tuple[PPCA, AmortizedGuide]:
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(data_dim, latent_dim, generator=generator, dtype=torch.float64)
        mean = torch.randn(data_dim, generator=generator, dtype=torch.float64)
        model = PPCA(weight, mean=mean, obs_variance=obs_variance)
        return model, AmortizedGuide(LinearEncoder.from_affine(*model.posterior_map()).double())

    return make
