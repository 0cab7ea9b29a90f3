"""Evaluation leaves modules and random state as it found them, errors included."""

import pytest
import torch
from torch import nn

from pyro_avae.evaluation import frozen
from pyro_avae.randomness import isolated


def test_modes_and_gradients_come_back_even_after_an_error() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    net[1].eval()
    net[0].bias.requires_grad_(False)
    before = ([part.training for part in net.modules()], [p.requires_grad for p in net.parameters()])
    with pytest.raises(RuntimeError, match="stop"), frozen(net, net):
        assert not any(part.training for part in net.modules())
        assert not any(p.requires_grad for p in net.parameters())
        raise RuntimeError("stop")
    assert ([part.training for part in net.modules()], [p.requires_grad for p in net.parameters()]) == before


def test_the_random_state_comes_back_even_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"), isolated(1):
        torch.rand(3)
        raise RuntimeError("stop")
    assert torch.equal(torch.get_rng_state(), before)


def test_different_seeds_differ() -> None:
    draws = []
    for seed in (1, 2):
        with isolated(seed):
            draws.append(torch.rand(4))
    assert not torch.equal(*draws)
