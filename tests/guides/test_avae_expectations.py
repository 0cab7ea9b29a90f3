"""What the bound does to a 1x1 linear pair, against expectations worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from pyro_avae import AVAE_ELBO
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE

F64 = torch.float64


def scalar_pair(rho: float, **options) -> tuple[ExtendedVAE, AVAEGuide, dict[str, float]]:
    """The 1x1 linear pair x = w z + noise, q(z|x) = N(k x, s^2), and its numbers."""
    numbers = {"w": 1.3, "nu": 0.5, "k": 0.6, "s2": 0.3}
    decoder = nn.Linear(1, 1, bias=False).double()
    encoder = LinearEncoder(1, 1).double()
    with torch.no_grad():
        decoder.weight.fill_(numbers["w"])
        encoder.linear.weight.fill_(numbers["k"])
        encoder.linear.bias.zero_()
        encoder.log_scale.fill_(0.5 * math.log(numbers["s2"]))
    model = ExtendedVAE(decoder, latent_dim=1, rho=rho, obs_variance=numbers["nu"])
    return model, AVAEGuide(encoder, model, **options), numbers


def test_the_z_of_the_coupling_is_the_z_that_made_the_view():
    """The expectation of the consistency term, by hand, with one z: E(k w z - rho z)^2 and not two independent z."""
    rho, count = 0.9, 20_000
    model, guide, n = scalar_pair(rho)
    x = torch.full((count, 1), 0.8, dtype=F64)
    mean, v = n["k"] * 0.8, 1 - rho**2
    gain = n["k"] * n["w"]
    noise = n["k"] ** 2 * n["nu"]
    one_z = (gain - rho) ** 2 * (mean**2 + n["s2"])
    two_z = (gain - rho) ** 2 * mean**2 + (gain**2 + rho**2) * n["s2"]
    rest = n["s2"] + noise

    def kl(squared: float) -> float:
        return 0.5 * ((rest + squared) / v - 1 - math.log(n["s2"]) + math.log(v))

    with torch.no_grad():
        draws = torch.stack([-AVAE_ELBO().terms(model, guide, x)["z_aux"] / count for _ in range(10)])
    error = float(draws.std()) / math.sqrt(10)
    # 10 batches: Student's t with 9 degrees of freedom exceeds 6 once in 5000 seeds; this seed is fixed
    assert abs(float(draws.mean()) - kl(one_z)) < 6 * error
    assert abs(float(draws.mean()) - kl(two_z)) > 60 * error


def test_a_mean_view_has_no_contraction_term():
    """x_aux = w z lacks the k^2 nu / (2 (1 - rho^2)) of the sampled view."""
    rho, count = 0.9, 20_000
    x = torch.full((count, 1), 0.8, dtype=F64)
    with torch.no_grad():
        model, guide, n = scalar_pair(rho, view="sample")
        other = AVAEGuide(guide.encoder, model, view="mean")
        gaps = torch.stack(
            [
                (AVAE_ELBO().terms(model, other, x)["z_aux"] - AVAE_ELBO().terms(model, guide, x)["z_aux"]) / count
                for _ in range(10)
            ]
        )
    expected = n["k"] ** 2 * n["nu"] / (2 * (1 - rho**2))
    error = float(gaps.std()) / math.sqrt(10)
    assert abs(float(gaps.mean()) - expected) < 6 * error < expected / 10


def test_an_unused_latent_settles_at_one_minus_rho_squared():
    """The decoder ignores z: there the gradient is zero, the KL costs 1.029 nats and the consistency 0.475."""
    rho, count, rounds = 0.975, 4000, 20
    model, guide, _ = scalar_pair(rho)
    with torch.no_grad():
        model.decoder.weight.zero_()
        guide.encoder.linear.weight.zero_()

    def draws(variance: float) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            guide.encoder.log_scale.fill_(0.5 * math.log(variance))
        costs, grads = [], []
        for _ in range(rounds):
            terms = AVAE_ELBO().terms(model, guide, torch.zeros(count, 1, dtype=F64))
            grads.append(torch.autograd.grad(-terms["z"] - terms["z_aux"], guide.encoder.log_scale)[0] / count)
            costs.append(torch.stack([-terms["z"], -terms["z_aux"]]).detach() / count)
        return torch.stack(costs), torch.cat(grads)

    costs, grads = draws(1 - rho**2)
    error = costs[:, 1].std() / math.sqrt(rounds)
    # the first is analytic; 6 standard errors for the second
    assert float(costs[:, 0].mean()) == pytest.approx(0.5 * (-(rho**2) - math.log(1 - rho**2)), rel=1e-10)
    assert float(costs[:, 0].mean()) == pytest.approx(1.029, abs=5e-4)
    assert abs(float(costs[:, 1].mean()) - rho**2 / 2) < 6 * float(error) < 0.05
    assert rho**2 / 2 == pytest.approx(0.475, abs=5e-4)
    assert abs(float(grads.mean())) < 6 * float(grads.std()) / math.sqrt(rounds)
    for variance in (0.8 * (1 - rho**2), 1.2 * (1 - rho**2), 1.0):
        _, grads = draws(variance)
        assert abs(float(grads.mean())) > 6 * float(grads.std()) / math.sqrt(rounds)
