"""The categorical likelihood of pixels, against torch's categorical distribution."""

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import build
from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import CategoricalPixels, ExtendedVAE, MLPDecoder, categorical
from pyro_avae.runs.settings import Settings

F64 = torch.float64
#: Some hundreds of roundings: 256 terms are added.
ROUNDING = 1e3 * torch.finfo(F64).eps
LEVELS = torch.arange(256)


def reference(out, channels):
    """torch's own, levels in the last dimension; channel c of the image has outputs 256 c to 256 c + 255."""
    parts = [out[..., 256 * c : 256 * (c + 1), :, :].movedim(-3, -1) for c in range(channels)]
    return torch.distributions.Categorical(logits=torch.stack(parts, -4))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize("away", [0.0, 0.4, -0.4])
def test_every_level_is_read_as_itself(dtype, away):
    """x = k/255, and what is nearest to it, has the probability of level k."""
    out = torch.zeros(256, 256, 1, 1, dtype=dtype)
    out[LEVELS, LEVELS] = 50.0
    x = ((LEVELS.to(dtype) + away) / 255).clamp(0, 1).reshape(256, 1, 1, 1)
    # exp(-50) * 255 is below the rounding of 1 in either dtype
    assert float(categorical(out).log_prob(x).abs().max()) <= 10 * torch.finfo(dtype).eps


def test_the_log_probability_is_that_of_torch():
    out = torch.randn(4, 3 * 256, 2, 5, dtype=F64)
    level = torch.randint(256, (4, 3, 2, 5))
    made = categorical(out)
    assert made.batch_shape == (4, 3, 2, 5)
    expected = reference(out, 3).log_prob(level)
    torch.testing.assert_close(made.log_prob(level / 255), expected, rtol=ROUNDING, atol=ROUNDING)


def test_samples_of_the_latent_come_in_front():
    out, level = torch.randn(6, 4, 256, 2, 5, dtype=F64), torch.randint(256, (4, 1, 2, 5))
    expected = reference(out, 1).log_prob(level)
    torch.testing.assert_close(categorical(out).log_prob(level / 255), expected, rtol=ROUNDING, atol=ROUNDING)
    # and a distribution without them takes several images
    alone = categorical(out[0]).log_prob((level / 255).expand(7, 4, 1, 2, 5))
    torch.testing.assert_close(alone, expected[:1].expand(7, 4, 1, 2, 5), rtol=ROUNDING, atol=ROUNDING)


def test_mean_and_variance_are_those_of_the_levels():
    out = 3 * torch.randn(2, 256, 1, 2, dtype=F64)
    probs, x = reference(out, 1).probs, LEVELS.double() / 255
    mean = (probs * x).sum(-1)
    variance = (probs * (x - mean[..., None]) ** 2).sum(-1)
    torch.testing.assert_close(categorical(out).mean, mean, rtol=ROUNDING, atol=ROUNDING)
    torch.testing.assert_close(categorical(out).variance, variance, rtol=ROUNDING, atol=ROUNDING)


def test_samples_have_the_probabilities_of_the_levels():
    logits = torch.full((1, 256, 1, 1), -torch.inf, dtype=F64)
    logits[0, [3, 100, 255], 0, 0] = torch.tensor([0.2, 0.5, 0.3], dtype=F64).log()
    n = 20_000
    drawn = (categorical(logits).sample((n,)) * 255).round().long().flatten()
    assert set(drawn.tolist()) == {3, 100, 255}
    for level, p in ((3, 0.2), (100, 0.5), (255, 0.3)):
        # five standard errors of a share of n draws
        assert float((drawn == level).double().mean()) == pytest.approx(p, abs=5 * (p * (1 - p) / n) ** 0.5)


def test_expansion_changes_no_probability():
    made, x = CategoricalPixels(torch.randn(2, 1, 256, 3, 3)), torch.rand(2, 1, 3, 3)
    wide = made.expand((5, 2, 1, 3, 3))
    assert wide.sample().shape == (5, 2, 1, 3, 3)
    assert torch.equal(wide.log_prob(x), made.log_prob(x).expand(5, 2, 1, 3, 3))


@pytest.mark.parametrize("shape", [(4, 1, 3, 3), (4, 257, 3, 3), (256, 3)])
def test_another_number_of_outputs_is_refused(shape):
    with pytest.raises(InputError, match=r"\Acategorical: expected 256 outputs of the decoder a channel"):
        categorical(torch.zeros(shape))
    with pytest.raises(InputError, match=r"\Alogits: expected"):
        CategoricalPixels(torch.zeros(shape))


def test_pixels_beyond_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match="within the support"):
        categorical(torch.zeros(1, 256, 1, 1)).log_prob(torch.full((1, 1, 1, 1), 1.5))


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_decoder_has_256_channels_for_each_of_the_image(architecture, channels):
    settings = Settings(
        method="avae", likelihood="categorical", architecture=architecture, image_shape=(channels, 8, 8), hidden=(8,)
    )
    model, guide, elbo = build(settings)
    assert model.decoder(torch.zeros(2, settings.latent_dim)).shape == (2, 256 * channels, 8, 8)
    x = torch.rand(5, channels, 8, 8)
    elbo(model, guide)(x).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_sampled_view_cuts_the_gradient_and_a_mean_one_does_not():
    shape = (1, 4, 4)
    model = ExtendedVAE(MLPDecoder(2, (256, 4, 4), hidden=[8], output=None), latent_dim=2, likelihood=categorical)
    with pytest.raises(InputError, match="CategoricalPixels likelihood, which cannot be reparametrised"):
        AVAEGuide(MLPEncoder(shape, 2, hidden=[8]), model, gradient="through_z")(torch.rand(3, *shape))
    z = torch.randn(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.decode(z).sum(), z)
    assert float(gradient.abs().sum()) > 0
