"""The AVAE's loss and every gradient, against the objective written by hand in plain torch."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import softplus

from pyro_avae import AVAE_ELBO
from pyro_avae.coupling import LearnedRho
from pyro_avae.guides import AVAEGuide
from pyro_avae.models import ExtendedVAE, Gaussian, bernoulli, continuous_bernoulli

F64 = torch.float64
#: Two orders of summation of a few hundred terms differ by some tens of roundings; gradients multiply them by condition
#: numbers of up to 1/(1 - rho^2) = 50.
ROUNDINGS = 1e3
ROUNDING = ROUNDINGS * torch.finfo(F64).eps


class Decoder(nn.Module):
    """out = W2 tanh(W1 z + b1) + b2, offset so that no logit of a continuous Bernoulli is near 0."""

    def __init__(self, latent_dim: int, data_dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(latent_dim, 4), nn.Linear(4, data_dim)
        with torch.no_grad():
            self.second.bias += 3.0

    def forward(self, z: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(z)))


class Encoder(nn.Module):
    """loc linear; log scale of the diagonal linear; strictly lower part linear."""

    def __init__(self, data_dim: int, latent_dim: int, *, full: bool) -> None:
        super().__init__()
        self.loc, self.log_scale = nn.Linear(data_dim, latent_dim), nn.Linear(data_dim, latent_dim)
        self.lower = nn.Linear(data_dim, latent_dim**2) if full else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        loc, scale = self.loc(x), self.log_scale(x).mul(0.2).exp()
        if self.lower is None:
            return loc, scale
        length = loc.shape[-1]
        return loc, self.lower(x).unflatten(-1, (length, length)).tril(-1) + torch.diag_embed(scale)


@dataclass(frozen=True)
class Case:
    family: str = "gaussian"
    rho: object = 0.8
    nu: float = 0.5
    learned_nu: bool = False
    full: bool = False
    view: str = "sample"
    gradient: str | None = None
    links: int = 1
    particles: int = 1
    vectorised: bool = False
    latent_dim: int = 3
    data_dim: int = 4
    batch: int = 2
    seed: int = 0
    dtype: torch.dtype = F64

    @property
    def cut(self) -> bool:
        return self.gradient == "cut" or (self.gradient is None and (self.family, self.view) == ("bernoulli", "sample"))


def build(case: Case) -> tuple[ExtendedVAE, AVAEGuide, Tensor]:
    torch.manual_seed(case.seed)
    likelihood = {
        "gaussian": Gaussian(obs_variance=case.nu, learned=case.learned_nu),
        "bernoulli": bernoulli,
        "continuous_bernoulli": continuous_bernoulli,
    }[case.family]
    model = ExtendedVAE(
        Decoder(case.latent_dim, case.data_dim),
        latent_dim=case.latent_dim,
        rho=copy.deepcopy(case.rho),
        likelihood=likelihood,
        num_views=case.links,
    ).to(case.dtype)
    encoder = Encoder(case.data_dim, case.latent_dim, full=case.full).to(case.dtype)
    x = torch.rand(case.batch, case.data_dim, dtype=case.dtype)
    if case.family == "bernoulli":
        x = (x > 0.5).to(case.dtype)
    return model, AVAEGuide(encoder, model, view=case.view, gradient=case.gradient), x


def hand_decoder(parameters: dict[str, Tensor], z: Tensor) -> Tensor:
    p = {name.removeprefix("observation.decoder."): value for name, value in parameters.items()}
    return torch.tanh(z @ p["first.weight"].T + p["first.bias"]) @ p["second.weight"].T + p["second.bias"]


def hand_encoder(parameters: dict[str, Tensor], x: Tensor, case: Case) -> tuple[Tensor, Tensor]:
    """Mean and Cholesky factor, full or diagonal alike."""
    p = {name.removeprefix("encoder."): value for name, value in parameters.items()}
    loc = x @ p["loc.weight"].T + p["loc.bias"]
    tril = torch.diag_embed((0.2 * (x @ p["log_scale.weight"].T + p["log_scale.bias"])).exp())
    if case.full:
        flat = x @ p["lower.weight"].T + p["lower.bias"]
        strict = torch.ones(case.latent_dim, case.latent_dim, dtype=case.dtype).tril(-1)
        tril = tril + flat.reshape(*loc.shape, case.latent_dim) * strict
    return loc, tril


def hand_kl(loc: Tensor, tril: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """KL(N(loc, T T') || N(mean, diag(variance))), summed over the batch."""
    own = (tril**2).sum(-1)
    log_det = 2 * tril.diagonal(dim1=-2, dim2=-1).log()
    return 0.5 * ((own + (loc - mean) ** 2) / variance - 1 - log_det + variance.log()).sum()


def hand_log_likelihood(x: Tensor, out: Tensor, nu: Tensor, family: str) -> Tensor:
    if family == "gaussian":
        return (-0.5 * (x - out) ** 2 / nu - 0.5 * torch.log(2 * math.pi * nu)).sum()
    log_prob = x * out - softplus(out)
    if family == "continuous_bernoulli":
        # normaliser 2 artanh(1 - 2 lambda) / (1 - 2 lambda), lambda = sigmoid(out); 2 artanh(1 - 2 lambda) = -out
        log_prob = log_prob + torch.log(-out / (1 - 2 * torch.sigmoid(out)))
    return log_prob.sum()


def hand_view(out: Tensor, nu: Tensor, case: Case) -> Tensor:
    if case.family == "gaussian":
        return out if case.view == "mean" else out + nu.sqrt() * torch.randn(out.shape, dtype=case.dtype)
    probability = torch.sigmoid(out)
    if case.family == "bernoulli":
        return probability if case.view == "mean" else torch.bernoulli(probability.detach())
    assert case.view == "sample"
    assert bool((out.abs() > 0.01).all())  # the library switches to a Taylor expansion near 0
    u = torch.rand(out.shape, dtype=case.dtype)
    # inverse of F(t) = (lambda^t (1-lambda)^(1-t) + lambda - 1) / (2 lambda - 1)
    return torch.log1p(u * (2 * probability - 1) / (1 - probability)) / out


def hand_loss(model: ExtendedVAE, guide: AVAEGuide, x: Tensor, case: Case) -> Tensor:
    """-B_AVAE with one sample of everything; only ``named_parameters`` is read off the library's objects."""
    theta, eta = dict(model.named_parameters()), dict(guide.named_parameters())
    rho = torch.as_tensor(case.rho, dtype=case.dtype) if not isinstance(case.rho, nn.Module) else None
    if rho is None:
        rho = (1 - 2.0**-20) * torch.tanh(theta["coupling.raw"])
    raw = theta.get("observation.likelihood.raw")
    nu = 1e-8 + softplus(raw) if case.learned_nu else torch.tensor(case.nu, dtype=case.dtype)
    constant = {name: value.detach() for name, value in theta.items()}
    front = (case.particles,) if case.vectorised else ()
    loss = torch.zeros((), dtype=case.dtype)
    for _ in range(1 if case.vectorised else case.particles):
        loc, tril = hand_encoder(eta, x, case)
        z = loc + (tril @ torch.randn(*front, *loc.shape, 1, dtype=case.dtype)).squeeze(-1)
        zero, one = torch.zeros_like(z), torch.ones(case.latent_dim, dtype=case.dtype)
        loss = loss - hand_log_likelihood(x, hand_decoder(theta, z), nu, case.family)
        loss = loss + hand_kl(loc, tril, zero, one)
        latent = z
        for _ in range(case.links):
            source = latent.detach() if case.cut else latent
            x_aux = hand_view(hand_decoder(constant, source), nu.detach(), case)
            loc_aux, tril_aux = hand_encoder(eta, x_aux, case)
            loss = loss + hand_kl(loc_aux, tril_aux, rho * latent, (1 - rho**2) * one)
            latent = loc_aux + (tril_aux @ torch.randn(*loc_aux.shape, 1, dtype=case.dtype)).squeeze(-1)
    return loss / case.particles


def gradients(loss: Tensor, model: nn.Module, guide: nn.Module) -> dict[str, Tensor]:
    named = {**dict(model.named_parameters()), **dict(guide.named_parameters())}
    grads = torch.autograd.grad(loss, list(named.values()))
    return dict(zip(named, grads, strict=True))


def library(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    model, guide, x = build(case)
    torch.manual_seed(case.seed + 1)
    loss = AVAE_ELBO(num_particles=case.particles, vectorize_particles=case.vectorised)(model, guide)(x)
    return loss, gradients(loss, model, guide)


def by_hand(case: Case) -> tuple[Tensor, dict[str, Tensor]]:
    model, guide, x = build(case)
    torch.manual_seed(case.seed + 1)
    loss = hand_loss(model, guide, x, case)
    return loss, gradients(loss, model, guide)


def assert_same(case: Case) -> None:
    rounding = ROUNDINGS * torch.finfo(case.dtype).eps
    (loss, grads), (expected, expected_grads) = library(case), by_hand(case)
    torch.testing.assert_close(loss, expected, rtol=rounding, atol=rounding)
    for name, grad in expected_grads.items():
        size = float(grad.abs().max())
        assert size > 0, f"{name} has no gradient in the objective by hand, so the test could not fail there"
        torch.testing.assert_close(grads[name], grad, rtol=rounding, atol=rounding * max(1.0, size), msg=name)


CASES = {
    "sample_default": Case(),
    "sample_through_z": Case(gradient="through_z"),
    "sample_cut": Case(gradient="cut"),
    "mean_through_z": Case(view="mean", gradient="through_z"),
    "mean_default": Case(view="mean"),
    "mean_cut": Case(view="mean", gradient="cut"),
    "rho_per_dimension": Case(rho=(0.9, -0.3, 0.0)),
    "rho_zero": Case(rho=0.0),
    "rho_negative": Case(rho=-0.7),
    "rho_learned": Case(rho=LearnedRho(0.6, latent_dim=3)),
    "rho_learned_per_dimension": Case(
        rho=LearnedRho((0.6, -0.2, 0.1), latent_dim=3, per_dimension=True), gradient="cut"
    ),
    "nu_learned": Case(learned_nu=True),
    "nu_learned_cut": Case(learned_nu=True, gradient="cut"),
    "nu_and_rho_learned_chain": Case(learned_nu=True, rho=LearnedRho(0.4, latent_dim=3), links=2),
    "full_covariance": Case(full=True),
    "full_covariance_cut_chain": Case(full=True, gradient="cut", links=2),
    "chain_of_3": Case(links=3),
    "chain_of_3_cut": Case(links=3, gradient="cut"),
    "chain_of_3_mean": Case(links=3, view="mean"),
    "particles": Case(particles=3),
    "particles_vectorised": Case(particles=3, vectorised=True),
    "particles_vectorised_full_chain": Case(particles=2, vectorised=True, full=True, links=3),
    "one_by_one": Case(batch=1, data_dim=1, latent_dim=1),
    "float32": Case(dtype=torch.float32),
    "float32_learned_chain": Case(dtype=torch.float32, learned_nu=True, rho=LearnedRho(0.4, latent_dim=3), links=2),
    "bernoulli_default": Case(family="bernoulli"),
    "bernoulli_cut_chain": Case(family="bernoulli", gradient="cut", links=2),
    "bernoulli_mean_through_z": Case(family="bernoulli", view="mean", gradient="through_z"),
    "bernoulli_vectorised": Case(family="bernoulli", particles=3, vectorised=True),
    "continuous_bernoulli_default": Case(family="continuous_bernoulli"),
    "continuous_bernoulli_cut": Case(family="continuous_bernoulli", gradient="cut"),
    "continuous_bernoulli_chain": Case(family="continuous_bernoulli", links=3),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_loss_and_gradients_equal_the_objective_by_hand(case):
    assert_same(case)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_loss_and_gradients_equal_the_objective_by_hand_everywhere(data):
    latent_dim = data.draw(st.integers(1, 4))
    correlation = st.floats(-0.99, 0.99)
    assert_same(
        Case(
            latent_dim=latent_dim,
            data_dim=data.draw(st.integers(1, 5)),
            batch=data.draw(st.integers(1, 4)),
            rho=data.draw(st.one_of(correlation, st.tuples(*[correlation] * latent_dim))),
            nu=data.draw(st.floats(0.05, 4.0)),
            # a strictly lower triangle needs two dimensions to have a gradient
            full=data.draw(st.booleans()) and latent_dim > 1,
            view=data.draw(st.sampled_from(["sample", "mean"])),
            gradient=data.draw(st.sampled_from([None, "through_z", "cut"])),
            links=data.draw(st.integers(1, 3)),
            seed=data.draw(st.integers(0, 2**31 - 2)),
        )
    )


@pytest.mark.parametrize("family", ["gaussian", "continuous_bernoulli"])
@pytest.mark.parametrize("links", [1, 3])
def test_cut_has_the_value_and_not_the_encoder_gradient_of_through_z(family, links):
    case = Case(family=family, links=links)
    (through, through_grads), (cut, cut_grads) = (library(replace(case, gradient=g)) for g in ("through_z", "cut"))
    torch.testing.assert_close(through, cut, rtol=0, atol=0)
    for name, grad in through_grads.items():
        difference = float((grad - cut_grads[name]).abs().max())
        if name.startswith("encoder."):
            # a million roundings: what the path z -> x_aux -> encoder is worth
            assert difference > 1e3 * ROUNDING * float(grad.abs().max()), name
        elif links == 1:
            # theta is held constant in x_aux, so that the decoder cannot see where the gradient stops
            assert difference <= ROUNDING * max(1.0, float(grad.abs().max())), name


@pytest.mark.parametrize("links", [1, 2])
@pytest.mark.parametrize("family", ["gaussian", "bernoulli", "continuous_bernoulli"])
def test_the_decoder_sees_the_reconstruction_alone(family, links):
    """theta, a learned nu included, gets the gradient of E log p(x|z) and nothing from the consistency term."""
    model, guide, x = build(Case(family=family, links=links, learned_nu=family == "gaussian"))
    terms = AVAE_ELBO().terms(model, guide, x)
    consistency = sum(term for name, term in terms.items() if name.startswith("z_aux"))
    assert len(terms) == 2 + links
    grads = torch.autograd.grad(consistency, list(model.parameters()), allow_unused=True)
    assert all(grad is None or not grad.any() for grad in grads)
    assert all(grad.any() for grad in torch.autograd.grad(terms["x"], list(model.parameters())))
