"""The re-encoding error: exact for linear pairs, the same in parts, None where it says nothing."""

import pytest
import torch

from pyro_avae.evaluation.reencoding import reencoding_error
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import VAE


def pair(gain: float) -> tuple[VAE, AmortizedGuide]:
    """The encoder of 2 x 1 data has slope ``gain``, the decoder slope 1."""
    model, guide = VAE(torch.nn.Linear(1, 2), latent_dim=1), AmortizedGuide(LinearEncoder(2, 1))
    with torch.no_grad():
        model.observation.decoder.weight.fill_(1.0)
        model.observation.decoder.bias.zero_()
        guide.encoder.linear.weight.fill_(gain / 2)
        guide.encoder.linear.bias.zero_()
    return model, guide


@pytest.mark.parametrize("gain", [0.0, 0.25, 1.0, 3.0])
def test_a_linear_loop_of_gain_k_misses_by_1_minus_k(gain: float) -> None:
    x = torch.linspace(-1, 1, 11).reshape(-1, 1).expand(-1, 2)  # of mean zero
    found = reencoding_error(*pair(gain), x)
    if gain == 0:
        assert found is None, "an encoder that says nothing"
    else:
        # Eps of float32 weights; sums are in float64.
        assert found == pytest.approx(abs(1 - gain), abs=1e-6)


def test_batches_change_nothing() -> None:
    x = torch.randn(11, 2)
    whole, parts = (reencoding_error(*pair(0.7), x, batch_size=size) for size in (100, 4))
    assert whole == pytest.approx(parts, rel=1e-6)


def test_it_leaves_modes_as_they_were() -> None:
    model, guide = pair(0.5)
    model.train()
    reencoding_error(model, guide, torch.randn(3, 2))
    assert model.training
    assert all(parameter.requires_grad for parameter in (*model.parameters(), *guide.parameters()))
