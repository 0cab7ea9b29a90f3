"""swapped_tensors, and why functional_call is not used."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from pyro_avae import AVAE_ELBO
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound
from pyro_avae.models import ExtendedVAE
from pyro_avae.swapping import swapped_tensors


def layer_used_twice():
    layer = nn.Linear(2, 2)
    return nn.Sequential(layer, layer, nn.Linear(2, 5))


def test_functional_call_leaves_detached_tensors_behind():
    """The reason for a swap of our own; if torch mends this, the test says so."""
    decoder = layer_used_twice()
    functional_call(decoder, {n: p.detach() for n, p in decoder.named_parameters()}, (torch.zeros(1, 2),))
    assert not decoder[0].weight.requires_grad


def test_originals_come_back_also_after_an_error():
    decoder = layer_used_twice()
    before = {n: id(p) for n, p in decoder.named_parameters()}
    with pytest.raises(ZeroDivisionError), swapped_tensors(decoder.modules(), Tensor.detach):
        assert not any(p.requires_grad for p in decoder.parameters())
        _ = 1 / 0
    assert before == {n: id(p) for n, p in decoder.named_parameters()}
    assert all(p.requires_grad for p in decoder.parameters())


def test_tied_weights_are_swapped_for_one_tensor():
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    with swapped_tensors([first, second, first], Tensor.double) as put:
        assert first.weight is second.weight
        assert first.weight.dtype is torch.float64
        assert len(put) == 3
    assert first.weight is second.weight


def test_a_decoder_with_a_layer_used_twice_trains():
    model = ExtendedVAE(layer_used_twice(), latent_dim=2)
    guide = AVAEGuide(LinearEncoder(5, 2), model)
    x = torch.randn(4, 5)
    for _ in range(2):
        AVAE_ELBO()(model, guide)(x).backward()
        exact_bound(model, guide, x).backward()
    assert all(isinstance(p, nn.Parameter) and p.grad is not None for p in model.parameters())
