"""Scores beside the regret, against formulas and files written by hand."""

import math
import struct
import zlib

import pytest
import torch
from torch import nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood import chain_drift, complexity_score, likelihood_ratio, png_bits, typicality, waic
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import PPCA, VAE

F64 = torch.float64
ROUNDING = 1e4 * torch.finfo(F64).eps


@pytest.mark.parametrize(("channels", "color_type"), [(1, 0), (3, 2)])
def test_the_length_is_that_of_a_png_file_with_these_pixels(channels, color_type):
    """A constant image: signature, IHDR, IDAT of filtered rows, IEND; the filter of a row is the codec's choice."""
    x = torch.full((1, channels, 28, 28), 9 / 255)
    row = bytes([9] * channels * 28)
    least = min(
        len(zlib.compress(rows, 9)) for rows in ((b"\x00" + row) * 28, b"\x00" + row + (b"\x02" + bytes(len(row))) * 27)
    )
    overhead = 8 + (12 + len(struct.pack(">IIBBBBB", 28, 28, 8, color_type, 0, 0, 0))) + 12 + 12
    # other filters and strategies of deflate: some bytes
    assert abs(float(png_bits(x)) / 8 - overhead - least) <= 16


def test_noise_is_longer_than_its_entropy_and_structure_shorter():
    noise, flat = torch.rand(5, 1, 28, 28), torch.rand(5, 1, 1, 1).expand(5, 1, 28, 28)
    assert bool((png_bits(noise) > 8 * 784).all())
    assert bool((png_bits(flat) < 8 * 120).all())


def test_vectors_have_no_png():
    with pytest.raises(
        InputError, match=r"\Ax: expected images \(N, 1 or 3, H, W\) for a PNG file, got shape \(4, 6\)"
    ):
        png_bits(torch.rand(4, 6))


def test_bits_become_nats():
    """A codec as good as the model has a score of 0: 8 bits are 8 ln 2 nats."""
    log_p = torch.tensor([-8 * math.log(2), -1.0], dtype=F64)
    found = complexity_score(log_p, torch.tensor([8.0, 0.0], dtype=F64))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0], dtype=F64), rtol=0, atol=ROUNDING)


def test_the_direction_of_each_score_is_strangeness():
    low, high = torch.tensor([-10.0]), torch.tensor([-1.0])
    assert float(likelihood_ratio(low, high)) == 9
    assert float(typicality(low, torch.tensor([-2.0, -4.0]))) == 7
    assert float(typicality(high, torch.tensor([-2.0, -4.0]))) == 2
    # models that disagree are stranger than models that agree
    assert float(waic(torch.tensor([[-1.0], [-5.0]]))) == 3 + 8
    assert float(waic(torch.tensor([[-3.0], [-3.0]]))) == 3


@pytest.mark.parametrize("shape", [(1, 4), (4,)])
def test_one_model_has_no_variance(shape):
    with pytest.raises(InputError, match=r"\Awaic: expected log p \(K, N\) of at least 2 models"):
        waic(torch.zeros(shape))


def test_the_drift_of_a_linear_pair_is_a_matrix_power():
    """mu_t = (KW)^t mu_0 about the mean, and J = (mu_t - mu_0)' S^-1 (mu_t - mu_0) / 2 where both have covariance S."""
    generator = torch.Generator().manual_seed(0)
    model = PPCA(torch.randn(5, 2, generator=generator, dtype=F64), obs_variance=0.7)
    gain, bias, tril = (part.detach() for part in model.posterior_map())
    guide = AmortizedGuide(LinearEncoder.from_affine(gain, bias, tril).double())
    x = torch.randn(4, 5, generator=generator, dtype=F64)
    mean, once = x @ gain.T, gain @ model.weight.detach()
    expected = []
    for t in (1, 2, 3):
        moved = mean @ torch.linalg.matrix_power(once, t).T - mean
        expected.append(0.5 * (moved @ torch.linalg.inv(tril @ tril.T) * moved).sum(-1))
        found = chain_drift(model, guide, x, passes=t, batch_size=3)
        torch.testing.assert_close(found, torch.stack(expected).mean(0), rtol=ROUNDING, atol=ROUNDING)


def test_a_pair_that_encodes_what_it_decodes_does_not_drift():
    model, guide = VAE(nn.Linear(2, 5, bias=False), latent_dim=2), AmortizedGuide(LinearEncoder(5, 2))
    with torch.no_grad():
        guide.encoder.linear.weight.copy_(torch.linalg.pinv(model.decoder.weight))
        guide.encoder.linear.bias.zero_()
    # float32: some hundreds of roundings, squared
    assert float(chain_drift(model, guide, torch.randn(3, 5), passes=4).max()) < 1e-9


def test_no_passes_are_refused():
    model = PPCA(torch.randn(3, 2), obs_variance=1.0)
    with pytest.raises(InputError, match="passes: expected at least 1, got 0"):
        chain_drift(model, AmortizedGuide(LinearEncoder(3, 2)), torch.zeros(1, 3), passes=0)
