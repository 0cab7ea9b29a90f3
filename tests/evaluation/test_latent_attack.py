"""The symmetric KL against torch's, the attack against the known worst case of a linear encoder."""

import json

import pytest
import torch
from pyro.distributions import MultivariateNormal, Normal
from torch.distributions import kl_divergence

from pyro_avae.errors import InputError
from pyro_avae.evaluation import latent_attack, latent_pgd, symmetric_kl
from pyro_avae.guides import AmortizedGuide, LinearEncoder
from pyro_avae.models import VAE


def lower(*shape):
    return torch.randn(*shape, dtype=torch.float64).tril(-1) + torch.diag_embed(torch.rand(shape[:-1]).double() + 0.5)


def linear_pair(gain, *, scale=0.4, event=None):
    """A linear encoder to one latent with constant variance, and a decoder that copies the latent."""
    gain = torch.as_tensor(gain, dtype=torch.float64)[None]
    encoder = LinearEncoder.from_affine(gain, torch.zeros(1).double(), torch.full((1, 1), scale, dtype=torch.float64))
    decoder = torch.nn.Linear(1, gain.shape[1]).double()
    return VAE(decoder, latent_dim=1), AmortizedGuide(encoder)


def test_diagonal_gaussians():
    (loc_a, loc_b), (scale_a, scale_b) = torch.randn(2, 5, 3).double(), torch.rand(2, 5, 3).double() + 0.2
    a, b = Normal(loc_a, scale_a).to_event(1), Normal(loc_b, scale_b).to_event(1)
    expected = 0.5 * (kl_divergence(a, b) + kl_divergence(b, a))
    torch.testing.assert_close(symmetric_kl(loc_a, scale_a, loc_b, scale_b), expected)


def test_full_covariances_and_a_mixture_of_both_kinds():
    loc_a, loc_b = torch.randn(2, 5, 3).double()
    tril_a, tril_b, diagonal = lower(5, 3, 3), lower(5, 3, 3), torch.rand(5, 3).double() + 0.3
    a, b = MultivariateNormal(loc_a, scale_tril=tril_a), MultivariateNormal(loc_b, scale_tril=tril_b)
    expected = 0.5 * (kl_divergence(a, b) + kl_divergence(b, a))
    torch.testing.assert_close(symmetric_kl(loc_a, tril_a, loc_b, tril_b), expected)
    c = MultivariateNormal(loc_b, scale_tril=torch.diag_embed(diagonal))
    expected = 0.5 * (kl_divergence(a, c) + kl_divergence(c, a))
    torch.testing.assert_close(symmetric_kl(loc_a, tril_a, loc_b, diagonal), expected)
    torch.testing.assert_close(symmetric_kl(loc_b, diagonal, loc_a, tril_a), expected)


def test_the_worst_case_of_a_linear_encoder_with_one_latent():
    """delta = ±epsilon sign(w), divergence (epsilon |w|_1)² / (2 sigma²)."""
    gain, sigma, epsilon = torch.tensor([1.0, -2.0, 0.5, -0.1], dtype=torch.float64), 0.4, 0.1
    model, guide = linear_pair(gain, scale=sigma)
    x = torch.full((6, 4), 0.5, dtype=torch.float64)
    change = latent_pgd(guide, x, epsilon, steps=10, generator=torch.Generator().manual_seed(0)) - x
    torch.testing.assert_close(change.abs(), torch.full_like(x, epsilon))
    for row in change:
        assert row.sign().tolist() in (gain.sign().tolist(), (-gain).sign().tolist())
    reached = latent_attack(model, guide, x, epsilons=[epsilon], steps=10, restarts=2)["radii"]["0.1"]
    shift = epsilon * float(gain.abs().sum())
    for which in ("mean_over_restarts", "worst_over_restarts"):
        assert reached["symmetric_kl"][which] == pytest.approx(shift**2 / (2 * sigma**2), rel=1e-9)
        assert reached["mean_distance"][which] == pytest.approx(shift, rel=1e-9)
        assert reached["ms_ssim_input"][which] is None


def test_the_attack_keeps_to_the_ball_and_to_the_pixels(trained):
    x, _ = trained.data.test.fixed_batch(torch.arange(8))
    with torch.no_grad():  # a caller's, which the attack sees to
        adversarial = latent_pgd(trained.guide, x, 0.1, steps=5)
    assert float((adversarial - x).abs().max()) <= 0.1 + 1e-6  # float32
    assert float(adversarial.min()) >= 0.0 and float(adversarial.max()) <= 1.0
    assert not torch.equal(adversarial, x)


def test_more_restarts_are_worse_and_a_larger_radius_is_worse(trained):
    x, _ = trained.data.test.fixed_batch(torch.arange(10))
    result = latent_attack(trained.model, trained.guide, x, epsilons=[0.0, 0.05, 0.2], steps=10, restarts=3)
    at = result["radii"]
    assert json.loads(json.dumps(result)) == result
    assert result["num_images"] == 10 and result["ms_ssim"]["scales"] == 2
    for measure in ("symmetric_kl", "mean_distance"):
        assert at["0.0"][measure]["worst_over_restarts"] == pytest.approx(0.0, abs=1e-5)  # float32
        assert at["0.05"][measure]["mean_over_restarts"] < at["0.05"][measure]["worst_over_restarts"]
        assert at["0.05"][measure]["worst_over_restarts"] < at["0.2"][measure]["worst_over_restarts"]
    for measure in ("ms_ssim_reconstruction", "ms_ssim_input"):
        assert at["0.0"][measure]["worst_over_restarts"] == pytest.approx(1.0, abs=1e-5)
        assert at["0.05"][measure]["mean_over_restarts"] > at["0.05"][measure]["worst_over_restarts"]
        assert at["0.05"][measure]["worst_over_restarts"] > at["0.2"][measure]["worst_over_restarts"]


def test_the_attack_beats_random_noise(trained):
    x, _ = trained.data.test.fixed_batch(torch.arange(10))
    noisy = (x + 0.1 * (2 * torch.rand_like(x) - 1).sign()).clamp(0, 1)
    with torch.no_grad():
        random = symmetric_kl(*trained.guide.encode(x), *trained.guide.encode(noisy)).mean()
    result = latent_attack(trained.model, trained.guide, x, epsilons=[0.1], steps=20, restarts=1)
    assert result["radii"]["0.1"]["symmetric_kl"]["mean_over_restarts"] > 3 * float(random)


def test_a_seed_gives_one_result_and_nothing_else_moves(trained):
    x, _ = trained.data.test.fixed_batch(torch.arange(6))
    before = torch.get_rng_state()

    def run(**options):
        return latent_attack(trained.model, trained.guide, x, epsilons=[0.1], steps=3, restarts=2, **options)

    first = run(seed=1)
    assert run(seed=1) == first
    assert run(seed=2)["radii"] != first["radii"]
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.requires_grad for parameter in trained.guide.parameters())
    split = run(seed=1, batch_size=6)
    assert split == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": [1.5]}, "epsilons: expected L∞ radii"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"restarts": 0}, "restarts: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    model, guide = linear_pair([1.0, 1.0])
    with pytest.raises(InputError, match=message):
        latent_attack(model, guide, torch.full((2, 2), 0.5).double(), **options)


@pytest.mark.parametrize("bad", [1.5, -0.1, float("nan")])
def test_images_outside_the_pixels_are_refused(bad):
    model, guide = linear_pair([1.0, 1.0])
    with pytest.raises(InputError, match=r"pixels in \[0, 1\]"):
        latent_attack(model, guide, torch.tensor([[0.5, bad]]).double())
    with pytest.raises(InputError, match="expected images"):
        latent_attack(model, guide, torch.empty(0, 2).double())
