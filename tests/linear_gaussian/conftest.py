"""The linear AVAE that the tests of this folder share."""

import pytest
import torch
from torch import nn

from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE, Gaussian


@pytest.fixture(scope="session")
def pair():
    """Builds a float64 model, guide and data of given sizes and options from a seed."""

    def build(
        data_dim, latent_dim, *, seed, rho=0.8, obs_variance=0.5, full=False, views=1, learned=False, **guide_options
    ):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = ExtendedVAE(
                nn.Linear(latent_dim, data_dim),
                latent_dim=latent_dim,
                rho=rho,
                likelihood=Gaussian(obs_variance=obs_variance, learned=learned),
                num_views=views,
            ).double()
            encoder = LinearEncoder(data_dim, latent_dim, full_covariance=full).double()
            nn.init.normal_(encoder.log_scale, std=0.3)
            if encoder.lower is not None:
                nn.init.normal_(encoder.lower, std=0.3)
            x = torch.randn(4, data_dim, dtype=torch.float64)
        return model, AVAEGuide(encoder, model, **guide_options), x

    return build
