"""Natural and pairwise couplings: what they are, what they estimate, what they refuse."""

import math

import pytest
import torch

from pyro_avae.coupling import FixedRho, LearnedRho, MatrixRho, NaturalRho, PairwisePrior, as_coupling
from pyro_avae.errors import InputError

F64 = torch.float64


@pytest.mark.parametrize("gamma", [0.01, 1.0, 50.0])
def test_the_pairwise_prior_is_the_normalised_density_of_its_definition(gamma):
    coupling = PairwisePrior(gamma)
    grid = torch.linspace(-9, 9, 1201, dtype=F64)
    z, other = torch.meshgrid(grid, grid, indexing="ij")
    prior = torch.distributions.Normal(0.0, torch.tensor(coupling.prior_scale, dtype=F64))
    log_joint = prior.log_prob(z) + coupling(z.flatten()[:, None]).log_prob(other.flatten()[:, None]).view_as(z)
    defined = -0.5 * (z**2 + other**2 + gamma * (z - other) ** 2)
    offset = log_joint - defined
    assert float(offset.max() - offset.min()) < 1e-9
    # -log of the integral of the definition, (2 pi) / sqrt(1 + 2 gamma).
    assert float(offset[0, 0]) == pytest.approx(0.5 * math.log(1 + 2 * gamma) - math.log(2 * math.pi), abs=1e-9)


@pytest.mark.parametrize(
    "coupling",
    [
        FixedRho(0.7, latent_dim=1),
        FixedRho([-0.3], latent_dim=1),
        LearnedRho(0.9, latent_dim=1),
        NaturalRho(latent_dim=1, init=0.6),
        PairwisePrior(2.0),
    ],
    ids=lambda c: type(c).__name__,
)
def test_the_interaction_is_the_mixed_derivative_of_the_log_density(coupling):
    z = torch.tensor([[0.4]], dtype=F64, requires_grad=True)
    other = torch.tensor([[-0.2]], dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(coupling(z).log_prob(other).sum(), z, create_graph=True)
    (mixed,) = torch.autograd.grad(first.sum(), other)
    # Couplings whose rho is float32 are known to its precision.
    assert float(mixed) == pytest.approx(float(torch.as_tensor(coupling.interaction).detach()), rel=1e-5)


def test_a_natural_rho_is_the_correlation_of_what_it_saw():
    torch.manual_seed(0)
    coupling = NaturalRho(latent_dim=3, momentum=1.0)
    z = torch.randn(2, 500, 3)
    other = torch.stack([0.5 * z[..., 0] + torch.randn(2, 500), -z[..., 1], torch.zeros(2, 500)], -1)
    coupling.observe(z, other)
    flat, flat_other = z.reshape(-1, 3), other.reshape(-1, 3)
    expected = (flat * flat_other).mean(0) / (flat.square().mean(0) * flat_other.square().mean(0)).sqrt()
    torch.testing.assert_close(coupling.rho[:1], expected[:1])
    assert coupling.rho[1].item() == pytest.approx(-0.999), "kept away from -1"
    assert coupling.rho[2] == 0, "a latent that is not used"
    assert not coupling.rho.requires_grad


def test_a_natural_rho_forgets_slowly_only_in_training_and_is_saved():
    coupling = NaturalRho(latent_dim=1, init=0.5, momentum=0.1)
    z = torch.ones(4, 1)
    coupling.observe(z, z)
    assert coupling.rho.item() == pytest.approx(0.9 * 0.5 + 0.1)
    coupling.eval()
    coupling.observe(z, -z)
    assert coupling.rho.item() == pytest.approx(0.55)
    other = NaturalRho(latent_dim=1)
    other.load_state_dict(coupling.state_dict())
    assert torch.equal(other.rho, coupling.rho)
    assert coupling(torch.ones(1, 1, dtype=F64)).base_dist.loc.dtype == F64


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairwisePrior(0.0), "gamma: expected a finite number above 0, got 0.0"),
        (lambda: PairwisePrior(math.inf), "gamma: expected a finite number above 0, got inf"),
        (lambda: NaturalRho(latent_dim=1, momentum=0.0), r"momentum: expected a number in \(0, 1\], got 0.0"),
        (lambda: NaturalRho(latent_dim=1, most=1.0), r"most: expected a number in \(0, 1\), got 1.0"),
        (lambda: NaturalRho(latent_dim=2, init=1.0), "init: expected a number in"),
        (lambda: MatrixRho(0.5 * torch.eye(2)).interaction, "which MatrixRho has not; use FixedRho"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("word", "kind", "size"),
    [("learned", LearnedRho, ()), ("learned-per-dimension", LearnedRho, (3,)), ("natural", NaturalRho, (3,))],
)
def test_the_words_for_rho(word, kind, size):
    coupling = as_coupling(word, latent_dim=3)
    assert isinstance(coupling, kind) and coupling.rho.shape == size
