"""The linear-Gaussian pairs that ``pyro-avae verify`` holds against their exact bound."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from pyro_avae.coupling import PairwisePrior, RhoLike
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder, SelfSupervisedGuide
from pyro_avae.joint import Joint
from pyro_avae.models import VAE, ExtendedVAE, Gaussian, SelfSupervisedVAE
from pyro_avae.sites import AUX, SMOOTH
from pyro_avae.views import Gradient, Perturbed, View

__all__ = ["Case", "Pair", "cases"]


class Pair(NamedTuple):
    """A model and a guide of float64 parameters."""

    model: nn.Module
    guide: nn.Module


@dataclass(frozen=True)
class Case:
    """One row of Monte Carlo checks: a pair of given sizes."""

    label: str
    data_dim: int
    latent_dim: int
    build: Callable[["Case"], Pair]
    full_covariance: bool = False

    @property
    def name(self) -> str:
        """What the table calls the row."""
        covariance = "full" if self.full_covariance else "diagonal"
        return f"{self.label}, D={self.data_dim}, L={self.latent_dim}, {covariance} covariance"

    def decoder(self) -> nn.Module:
        """A linear decoder with weights of order 1, so that every term of the bound matters."""
        decoder = nn.Linear(self.latent_dim, self.data_dim)
        nn.init.normal_(decoder.weight, std=self.latent_dim**-0.5)
        return decoder

    def encoder(self) -> nn.Module:
        """A linear encoder, its covariance away from the identity."""
        encoder = LinearEncoder(self.data_dim, self.latent_dim, full_covariance=self.full_covariance)
        nn.init.normal_(encoder.log_scale, mean=-0.5, std=0.2)
        if encoder.lower is not None:
            nn.init.normal_(encoder.lower, std=0.3)
        return encoder


def _vae(case: Case) -> Pair:
    return Pair(
        VAE(case.decoder(), latent_dim=case.latent_dim, obs_variance=0.5),
        AmortizedGuide(case.encoder()),
    )


def _noise_vae(case: Case) -> Pair:
    return Pair(
        VAE(case.decoder(), latent_dim=case.latent_dim, obs_variance=0.5),
        AmortizedGuide(case.encoder(), input_noise=0.3),
    )


def _target(case: Case, rho: Any, *, learned: bool = False, num_views: int = 1, kind: Any = ExtendedVAE) -> Any:
    likelihood = Gaussian(obs_variance=0.5, learned=learned)
    return kind(case.decoder(), latent_dim=case.latent_dim, rho=rho, likelihood=likelihood, num_views=num_views)


def _avae(
    view: str, gradient: Gradient, *, num_views: int = 1, rho: str = "one", learned: bool = False
) -> Callable[[Case], Pair]:
    """Builds the AVAE pairs, which differ in these options only."""

    def build(case: Case) -> Pair:
        rhos: dict[str, RhoLike] = {
            "one": 0.8,
            "per dimension": torch.linspace(-0.5, 0.9, case.latent_dim, dtype=torch.float64),
            "learned": "learned",
        }
        model = _target(case, rhos[rho], learned=learned, num_views=num_views)
        return Pair(model, AVAEGuide(case.encoder(), model, view=view, gradient=gradient))

    return build


def _smooth(rho: RhoLike, joint: str, *, decoded: bool = False, num_views: int = 1) -> Callable[[Case], Pair]:
    """Builds the smooth encoder's pairs, its worst case a given perturbation; ``decoded`` adds the AVAE's branch."""

    def build(case: Case) -> Pair:
        nearby: View = Perturbed(torch.linspace(-0.5, 0.5, case.data_dim, dtype=torch.float64))
        branches = (AUX, SMOOTH) if decoded else (SMOOTH,)
        model = _target(case, dict.fromkeys(branches, rho), num_views=num_views)
        views: dict[str, str | View] = {AUX: "sample", SMOOTH: nearby}
        joints: dict[str, str | Joint] = {AUX: "factorised", SMOOTH: joint}
        guide = AVAEGuide(
            case.encoder(),
            model,
            view={branch: views[branch] for branch in branches},
            joint={branch: joints[branch] for branch in branches},
        )
        return Pair(model, guide)

    return build


def _self_supervised(case: Case) -> Pair:
    model = _target(case, 0.8, kind=SelfSupervisedVAE)
    return Pair(model, SelfSupervisedGuide(case.encoder(), model))


def cases() -> Iterator[Case]:
    """Every case of the table: each method at one size, then the sizes and covariances."""
    methods = {
        "VAE": _vae,
        "AVAE, sampled view, through z": _avae("sample", "through_z"),
        "AVAE, sampled view, cut": _avae("sample", "cut"),
        "AVAE, mean view, through z": _avae("mean", "through_z"),
        "AVAE, mean view, cut": _avae("mean", "cut"),
        "AVAE, rho per dimension": _avae("sample", "through_z", rho="per dimension"),
        "AVAE, rho and variance learned": _avae("sample", "through_z", rho="learned", learned=True),
        "AVAE, chain of 3, through z": _avae("sample", "through_z", num_views=3),
        "AVAE, chain of 3, cut": _avae("sample", "cut", num_views=3),
    }
    methods |= {
        "VAE, noisy input": _noise_vae,
        "AVAE-SS": _self_supervised,
        "SE, factorised": _smooth(0.8, "factorised"),
        "SE-AVAE, factorised": _smooth(0.8, "factorised", decoded=True),
    }
    # The optimal joint is one of diagonal covariances.
    diagonal = {
        "SE, optimal coupling": _smooth(0.8, "optimal"),
        "SE, optimal coupling, chain of 2": _smooth(0.8, "optimal", num_views=2),
        "SE, pairwise prior": _smooth(PairwisePrior(1.5), "optimal"),
        "SE-AVAE, optimal coupling": _smooth(0.8, "optimal", decoded=True),
    }
    for label, build in methods.items():
        for full in (False, True):
            yield Case(label, 5, 2, build, full_covariance=full)
    for label, build in diagonal.items():
        yield Case(label, 5, 2, build)
    for data_dim, latent_dim in ((1, 1), (2, 1), (20, 5)):
        for label in ("VAE", "AVAE, sampled view, through z"):
            for full in (False, True):
                yield Case(label, data_dim, latent_dim, methods[label], full_covariance=full)
