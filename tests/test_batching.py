"""Batch dimensions in front of a network that knows one."""

import pytest
import torch
from torch import nn

from pyro_avae.batching import apply_batched


class Strict(nn.Module):
    """Works on ``(B, C, H, W)`` only, and counts its calls."""

    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(2, 3, 2), []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        assert x.dim() == 4
        return self.conv(x).flatten(1)


@pytest.mark.parametrize("batch", [(5,), (2, 5), (3, 1, 4), (1, 1), ()])
def test_every_row_goes_through_the_network_once(batch):
    network = Strict()
    x = torch.rand(*batch, 2, 3, 3)
    out = apply_batched(network, x, event_dim=3)
    rows = network.conv(x.reshape(-1, 2, 3, 3)).flatten(1)
    torch.testing.assert_close(out, rows.reshape(*batch, 12))
    assert network.calls == [(max(1, torch.Size(batch).numel()), 2, 3, 3)]


def test_gradients_run_through():
    network, x = nn.Linear(3, 2), torch.rand(4, 5, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(apply_batched(network, x, event_dim=1).sum(), x)
    torch.testing.assert_close(grad, network.weight.sum(0).expand(4, 5, 3))


def test_tuples_lists_and_dicts_are_unflattened_part_by_part():
    x = torch.rand(4, 5, 3)
    nested = apply_batched(lambda x: {"a": (x, x.sum(-1)), "b": [x[:, :, None] * x[:, None]]}, x, event_dim=1)
    assert isinstance(nested["a"], tuple)
    assert isinstance(nested["b"], list)
    torch.testing.assert_close(nested["a"][0], x)
    torch.testing.assert_close(nested["a"][1], x.sum(-1))
    torch.testing.assert_close(nested["b"][0], x[..., :, None] * x[..., None, :])


def test_one_batch_dimension_is_passed_as_it_is():
    x = torch.rand(4, 3)
    seen = []
    apply_batched(lambda t: seen.append(t) or t, x, event_dim=1)
    assert seen[0] is x
