"""The theory of the AVAE on linear-Gaussian models, each statement as an identity between two numbers."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pyro
import torch
from torch import Tensor, nn

from pyro_avae import auxiliary
from pyro_avae.coupling import LearnedRho, MatrixRho, RhoLike, optimal_rho
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.linear_gaussian import exact_bound, exact_second_moment, exact_terms
from pyro_avae.models import PPCA, ExtendedVAE

__all__ = ["Identity", "theorems"]

_DATA_DIM, _LATENT_DIM, _BATCH, _OBS_VARIANCE = 6, 3, 8, 0.4


class Identity(NamedTuple):
    """A statement: what the programs give, what the closed form says, and how far apart rounding may put them."""

    name: str
    found: float
    expected: float
    allowed: float = 1e-8

    @property
    def difference(self) -> float:
        """Absolute difference, relative to the expected value where that is above 1."""
        return abs(self.found - self.expected) / max(1.0, abs(self.expected))

    @property
    def passed(self) -> bool:
        """Whether the two agree."""
        return self.difference <= self.allowed


class Toy(NamedTuple):
    """A PPCA model in float64, data, and a linear encoder that is not its posterior."""

    ppca: PPCA
    x: Tensor
    encoder: LinearEncoder

    def extended(self, rho: RhoLike) -> ExtendedVAE:
        """The extended target around the same decoder and likelihood."""
        return ExtendedVAE(self.ppca.decoder, latent_dim=_LATENT_DIM, rho=rho, likelihood=self.ppca.likelihood)

    def exact_encoder(self) -> LinearEncoder:
        """The exact posterior as an encoder."""
        return LinearEncoder.from_affine(*self.ppca.posterior_map())


def theorems(*, seed: int = 0) -> list[Identity]:
    """Every statement, on one random model drawn from the seed; the random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        weight = torch.randn(_DATA_DIM, _LATENT_DIM, dtype=torch.float64)
        ppca = PPCA(weight, mean=torch.randn(_DATA_DIM, dtype=torch.float64), obs_variance=_OBS_VARIANCE)
        x = ppca.sample(_BATCH, noise=True)
        encoder = LinearEncoder(_DATA_DIM, _LATENT_DIM).double()
        nn.init.normal_(encoder.log_scale, mean=-0.5, std=0.3)
        toy = Toy(ppca, x, encoder)
        return [identity for statement in _STATEMENTS for identity in statement(toy)]


def proposition_2_1(toy: Toy) -> Iterator[Identity]:
    r"""Proposition 2.1: (P-bar, Q-bar), which never encodes a decoded sample, has the VAE's bound for every rho."""
    encode = AmortizedGuide(toy.encoder).posterior
    plain = exact_bound(toy.ppca, AmortizedGuide(toy.encoder), toy.x)
    for rho in (-0.9, 0.0, 0.5, 0.975):
        target = toy.extended(rho)

        def model(x: Tensor, target: ExtendedVAE = target) -> None:
            with pyro.plate("data", len(x)):
                z = target.generate(x)
                z_aux = pyro.sample("z_aux", target.coupling(z))
                pyro.sample("x_aux", target.observe(z_aux))

        def guide(x: Tensor, target: ExtendedVAE = target) -> None:
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", encode(x))
                z_aux = pyro.sample("z_aux", target.coupling(z))
                pyro.sample("x_aux", target.observe(z_aux))

        found = exact_bound(model, guide, toy.x)
        yield Identity(f"Proposition 2.1: (P-bar, Q-bar) has the VAE's loss, rho={rho}", _float(found), _float(plain))


def exact_encoder_is_tight(toy: Toy) -> Iterator[Identity]:
    """With the exact posterior as encoder the VAE's bound is the log evidence."""
    found = exact_bound(toy.ppca, AmortizedGuide(toy.exact_encoder()), toy.x)
    yield Identity(
        "exact encoder: the VAE's loss is -log p(x)", _float(found), -_float(toy.ppca.log_evidence(toy.x).sum())
    )


def encode_decode_kernel(toy: Toy) -> Iterator[Identity]:
    """The exact encode-decode kernel of PPCA: matrix coupling R = W'W(W'W + nu I)^-1, stationary and reversible."""
    for obs_variance in (0.4, 1e-2, 1e-4, 1e-6):
        ppca = PPCA(toy.ppca.weight.detach(), obs_variance=obs_variance)
        gram = (ppca.weight.T @ ppca.weight).detach()
        kernel = gram @ torch.linalg.inv(gram + obs_variance * torch.eye(_LATENT_DIM).to(gram))
        moments = _kernel_moments(ppca)
        nu = f"nu={obs_variance:g}"
        yield Identity(f"kernel: E z'z^T = W'W(W'W + nu I)^-1, {nu}", _distance(moments.cross, kernel), 0.0)
        yield Identity(f"kernel: N(0, I) is stationary, {nu}", _distance(moments.second, torch.eye(_LATENT_DIM)), 0.0)
        yield Identity(f"kernel: reversible, {nu}", _distance(moments.cross, moments.cross.T), 0.0)
        # 1 - lambda/(lambda + nu) = nu/(lambda + nu), largest at the smallest eigenvalue
        gap = obs_variance / (float(torch.linalg.eigvalsh(gram)[0]) + obs_variance)
        distance = float(torch.linalg.matrix_norm(torch.eye(_LATENT_DIM).to(gram) - moments.cross, ord=2))
        yield Identity(f"kernel: distance to the identity is nu/(lambda_min + nu), {nu}", distance, gap)


def decomposition(toy: Toy) -> Iterator[Identity]:
    """E KL(q(z'|x~) || p_rho) = E KL(kernel || p_rho) + I(z'; x~ | z), and what it does to the bound."""
    covariance = toy.ppca.posterior_covariance().detach()
    eye = torch.eye(_LATENT_DIM).to(covariance)
    information = 0.5 * torch.logdet(2 * eye - covariance) * _BATCH
    evidence = toy.ppca.log_evidence(toy.x).sum()
    natural = MatrixRho(toy.ppca.natural_rho())
    couplings: dict[str, RhoLike] = {"rho=0.5": 0.5, "rho=0.975": 0.975, "rho=0": 0.0, "rho=I-S": natural}
    for name, rho in couplings.items():
        model = toy.extended(rho)
        guide = AVAEGuide(toy.exact_encoder(), model)
        consistency = -exact_terms(model, guide, toy.x)["z_aux"]
        kernel_kl = _kernel_kl(toy, eye - covariance, rho)
        yield Identity(
            f"decomposition: E KL(q||p_rho) = E KL(kernel||p_rho) + I, {name}",
            _float(consistency),
            _float(kernel_kl + information),
        )
        yield Identity(
            f"decomposition: B_AVAE = log p(x) - E KL(kernel||p_rho) - I, {name}",
            -_float(exact_bound(model, guide, toy.x)),
            _float(evidence - kernel_kl - information),
        )
    yield Identity(
        "decomposition: E KL(kernel||p_rho) = 0 at rho=I-S", _float(_kernel_kl(toy, eye - covariance, natural)), 0.0
    )


def best_rho(toy: Toy) -> Iterator[Identity]:
    """The optimal correlation of a given pair, from the cubic, is where the exact loss is stationary and smallest."""
    model = toy.extended("learned")
    guide = AVAEGuide(toy.encoder, model)
    moments = [
        exact_second_moment(model, guide, toy.x, *pair).diagonal(dim1=-2, dim2=-1).mean(0).tolist()
        for pair in (("z_aux", "z_aux"), ("z_aux", "z"), ("z", "z"))
    ]
    one = optimal_rho(*map(sum, moments), latent_dim=_LATENT_DIM)
    each = [optimal_rho(*of_one) for of_one in zip(*moments, strict=True)]
    choices: dict[str, float | list[float]] = {"one rho": one, "rho per dimension": each}
    for name, rho in choices.items():
        coupling = _learned(rho)
        loss = exact_bound(toy.extended(coupling), guide, toy.x)
        (slope,) = torch.autograd.grad(loss, coupling.raw)
        yield Identity(f"optimal rho: the exact loss is stationary there, {name}", float(slope.abs().max()), 0.0)
        grid = [exact_bound(toy.extended(value), guide, toy.x) for value in torch.linspace(-0.98, 0.98, 50).tolist()]
        excess = max(0.0, float(loss.detach()) - min(map(_float, grid)))
        yield Identity(f"optimal rho: no value on a grid has a smaller loss, {name}", excess, 0.0)


def _learned(rho: float | list[float]) -> LearnedRho:
    """A learned correlation that stands at ``rho`` to float64 precision."""
    coupling = LearnedRho(rho, latent_dim=_LATENT_DIM).double()
    with torch.no_grad():
        coupling.raw.copy_(torch.atanh(torch.tensor(rho, dtype=torch.float64) / (1 - 2.0**-20)))
    return coupling


def known_defects(toy: Toy) -> Iterator[Identity]:
    """Three defects of the authors' estimator, each moving the bound by the predicted amount."""
    yield _variance_as_scale(toy)
    yield _factorised_expectation(toy)
    yield _coupling_constant(toy)


def _variance_as_scale(toy: Toy) -> Identity:
    """encoders.py line 104 of the authors' code adds eps * variance to the mean; its KL has the right variance."""
    wrong = LinearEncoder(_DATA_DIM, _LATENT_DIM).double()
    wrong.load_state_dict(toy.encoder.state_dict())
    with torch.no_grad():
        wrong.log_scale.mul_(2)
    right = exact_terms(toy.ppca, AmortizedGuide(toy.encoder), toy.x)
    reconstruction = exact_terms(toy.ppca, AmortizedGuide(wrong), toy.x)["x"]
    shift = reconstruction + right["z"] - (right["x"] + right["z"])
    variance = (2 * toy.encoder.log_scale).exp()
    energy = toy.ppca.weight.square().sum(0)
    predicted = _BATCH * (energy * (variance - variance.square())).sum() / (2 * _OBS_VARIANCE)
    return Identity(
        "defect: variance used as scale moves the ELBO by sum |w|^2 (s^2 - s^4)/2nu", _float(shift), _float(predicted)
    )


def _factorised_expectation(toy: Toy) -> Identity:
    """vae.py lines 103-107 of the authors' code averages over a z that did not make x~."""
    rho = 0.8
    model = toy.extended(rho)
    plain = AmortizedGuide(toy.encoder)

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", plain.posterior(x))
            other = auxiliary("z_other", plain.posterior(x))
            x_aux = auxiliary("x_aux", model.observe_constant(other))
            pyro.sample("z_aux", plain.posterior(x_aux))

    right = exact_terms(model, AVAEGuide(toy.encoder, model), toy.x)["z_aux"]
    shift = exact_terms(model, guide, toy.x)["z_aux"] - right
    gain = toy.encoder.linear.weight @ toy.ppca.weight
    variance = (2 * toy.encoder.log_scale).exp()
    predicted = -_BATCH * rho / (1 - rho**2) * (gain.diagonal() * variance).sum()
    return Identity(
        "defect: factorised expectation moves the bound by -rho tr(KW Sigma)/(1-rho^2)",
        _float(shift),
        _float(predicted),
    )


def _coupling_constant(toy: Toy) -> Identity:
    """vae.py lines 108-110 of the authors' code has -L log 2pi where -(L/2) log 2pi(1 - rho^2) belongs."""
    rho = 0.975
    model = toy.extended(rho)
    guide = AVAEGuide(toy.encoder, model)
    moments = {
        pair: exact_second_moment(model, guide, toy.x, *pair).diagonal(dim1=-2, dim2=-1).sum()
        for pair in (("z_aux", "z_aux"), ("z_aux", "z"), ("z", "z"))
    }
    square = moments["z_aux", "z_aux"] - 2 * rho * moments["z_aux", "z"] + rho**2 * moments["z", "z"]
    entropy = _BATCH * (0.5 * _LATENT_DIM * math.log(2 * math.pi * math.e) + toy.encoder.log_scale.sum())
    official = -square / (2 * (1 - rho**2)) - _BATCH * _LATENT_DIM * math.log(2 * math.pi) + entropy
    shift = official - exact_terms(model, guide, toy.x)["z_aux"]
    predicted = -_BATCH * 0.5 * _LATENT_DIM * (math.log(2 * math.pi) - math.log(1 - rho**2))
    return Identity(
        "defect: the coupling's constant moves the value by -(L/2)(log 2pi - log(1-rho^2))", _float(shift), predicted
    )


class _Moments(NamedTuple):
    second: Tensor
    cross: Tensor


def _kernel_moments(ppca: PPCA) -> _Moments:
    """E z'z'^T and E z'z^T of one encode-decode step with the exact posterior, from z ~ N(0, I)."""
    model = ExtendedVAE(ppca.decoder, latent_dim=_LATENT_DIM, rho=0.5, likelihood=ppca.likelihood)
    encode = AmortizedGuide(LinearEncoder.from_affine(*ppca.posterior_map())).posterior

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", model.prior(x).expand((len(x),)))
            x_aux = auxiliary("x_aux", model.observe(z))
            pyro.sample("z_aux", encode(x_aux))

    x = torch.zeros(1, _DATA_DIM, dtype=torch.float64)
    second, cross = (exact_second_moment(model, guide, x, "z_aux", other)[0] for other in ("z_aux", "z"))
    return _Moments(second.detach(), cross.detach())


def _kernel_kl(toy: Toy, kernel: Tensor, rho: RhoLike) -> Tensor:
    """E_{q(z|x)} KL(N(Rz, I - RR^T) || p_rho(.|z)) in closed form, summed over the batch, q the exact posterior."""
    eye = torch.eye(_LATENT_DIM).to(kernel)
    coupling = rho.matrix if isinstance(rho, MatrixRho) else torch.as_tensor(rho, dtype=kernel.dtype) * eye
    covariance, target = eye - kernel @ kernel.T, eye - coupling @ coupling.T
    posterior = toy.ppca.posterior(toy.x)
    outer = posterior.loc.T @ posterior.loc + _BATCH * toy.ppca.posterior_covariance()
    drift = kernel - coupling
    mahalanobis = torch.trace(torch.linalg.solve(target, drift @ outer @ drift.T))
    spread = torch.trace(torch.linalg.solve(target, covariance)) - _LATENT_DIM
    return 0.5 * (mahalanobis + _BATCH * (spread + torch.logdet(target) - torch.logdet(covariance)))


def _float(value: Tensor) -> float:
    return float(value.detach())


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected.to(found)).abs().max().detach())


_STATEMENTS: tuple[Callable[[Toy], Iterator[Identity]], ...] = (
    proposition_2_1,
    exact_encoder_is_tight,
    encode_decode_kernel,
    decomposition,
    best_rho,
    known_defects,
)
