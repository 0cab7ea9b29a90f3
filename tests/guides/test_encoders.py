"""Encoders: their formulas, against plain torch."""

import math

import pytest
import torch

from pyro_avae.guides import LinearEncoder, MLPEncoder

F64 = torch.float64
#: A dozen roundings.
ROUNDING = 1e2 * torch.finfo(F64).eps


def test_the_mlp_encoder_by_hand():
    encoder = MLPEncoder((1, 2, 3), 2, hidden=[5, 4]).double()
    x = torch.rand(7, 1, 2, 3, dtype=F64)
    (w1, b1), (w2, b2), (w3, b3) = [
        (layer.weight, layer.bias) for layer in encoder.layers if isinstance(layer, torch.nn.Linear)
    ]
    hidden = torch.relu(torch.relu(x.reshape(7, 6) @ w1.T + b1) @ w2.T + b2)
    out = hidden @ w3.T + b3
    loc, scale = encoder(x)
    torch.testing.assert_close(loc, out[:, :2], rtol=ROUNDING, atol=ROUNDING)
    log_variance = 20 * torch.tanh(out[:, 2:] / 20)
    torch.testing.assert_close(scale, log_variance.exp().sqrt(), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("size", [1e3, 1e6, 1e18])
def test_no_input_makes_the_scale_overflow_or_vanish(dtype, size):
    encoder = MLPEncoder((3,), 2, hidden=[5]).to(dtype)
    x = size * torch.randn(50, 3, dtype=dtype)
    _, scale = encoder(x)
    bound = math.exp(10) * (1 + 10 * torch.finfo(dtype).eps)
    assert bool((scale <= bound).all())
    assert bool((scale >= 1 / bound).all())
    grads = torch.autograd.grad(scale.log().sum(), list(encoder.parameters()), allow_unused=True)
    assert all(grad is None or bool(grad.isfinite().all()) for grad in grads)


def test_the_bend_is_the_identity_to_one_percent_below_3_5():
    encoder = MLPEncoder((1,), 1, hidden=[]).double()
    raw = torch.linspace(0.1, 3.5, 50, dtype=F64)
    with torch.no_grad():
        encoder.layers[0].weight.copy_(torch.tensor([[0.0], [1.0]]))
    log_variance = 2 * encoder(raw[:, None])[1].squeeze(-1).log()
    assert bool(((log_variance - raw).abs() <= 0.0101 * raw).all())


def test_the_linear_encoder_has_the_affine_map_it_was_made_from():
    generator = torch.Generator().manual_seed(1)
    gain, bias = torch.randn(3, 5, dtype=F64, generator=generator), torch.randn(3, dtype=F64, generator=generator)
    tril = torch.randn(3, 3, dtype=F64, generator=generator).tril(-1) + torch.diag(
        torch.tensor([0.3, 1.2, 2.0], dtype=F64)
    )
    encoder = LinearEncoder.from_affine(gain, bias, tril)
    x = torch.randn(4, 5, dtype=F64, generator=generator)
    loc, scale = encoder(x)
    torch.testing.assert_close(loc, x @ gain.T + bias, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(scale, tril.expand(4, 3, 3), rtol=ROUNDING, atol=ROUNDING)
    assert all(parameter.dtype == F64 for parameter in encoder.parameters())


def test_the_upper_triangle_of_a_full_linear_encoder_is_not_used():
    encoder = LinearEncoder(5, 3, full_covariance=True)
    with torch.no_grad():
        encoder.lower.fill_(7.0)
    _, scale = encoder(torch.zeros(2, 5))
    assert bool((scale.triu(1) == 0).all())
    assert scale[0].tril(-1).unique().tolist() == [0.0, 7.0]


def test_the_diagonal_linear_encoder_gives_standard_deviations():
    encoder = LinearEncoder(5, 2)
    with torch.no_grad():
        encoder.log_scale.copy_(torch.tensor([0.5, 2.0]).log())
    _, scale = encoder(torch.rand(3, 5))
    torch.testing.assert_close(scale, torch.tensor([0.5, 2.0]).expand(3, 2))
