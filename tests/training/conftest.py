"""A small pair, made the same at every call."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import ExtendedVAE, Gaussian, MLPDecoder

SHAPE = (1, 4, 4)


@pytest.fixture
def make_pair() -> Callable[..., tuple[nn.Module, nn.Module]]:
    """A small AVAE whose initial parameters depend on ``seed`` alone."""

    def make(*, seed: int = 0, rho: float | str = 0.9, learned_variance: bool = False) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ExtendedVAE(
                MLPDecoder(3, SHAPE, hidden=[8]),
                latent_dim=3,
                rho=rho,
                likelihood=Gaussian(obs_variance=0.2, learned=learned_variance),
            )
            return model, AVAEGuide(MLPEncoder(SHAPE, 3, hidden=[8]), model)

    return make
