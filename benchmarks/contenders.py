"""The contenders: one step each of the same pair on the same batch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import torch
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from benchmarks.handwritten import Objective
from pyro_avae.compilation import compile_step
from pyro_avae.experiments.triples import make_triple
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import Triple

__all__ = ["BY_HAND", "OURS", "STOCK", "Contender", "Step", "contenders", "ours", "pair", "stock"]

LR = 1e-4

#: The contenders that others are compared with.
OURS, BY_HAND, STOCK = "ours, compiled", "torch by hand, compiled", "SVI, TraceMeanField_ELBO"

#: Does one step.
Step = Callable[[], object]


@dataclass(frozen=True)
class Contender:
    """One way to make a step.

    Attributes:
        build: makes a pair of its own and returns its step.
        optional: somebody else's, which need not be installed nor able to do everything: left out where it fails.
    """

    build: Callable[[], Step]
    optional: bool = False


def contenders(name: str, settings: Settings, objective: Objective, x: Tensor) -> dict[str, Contender]:
    """Everybody, by name, for the objective ``name`` of :data:`benchmarks.handwritten.OBJECTIVES`."""
    return {
        "ours, eager": Contender(lambda: ours(settings, x, compiled=False)),
        OURS: Contender(lambda: ours(settings, x)),
        "torch by hand, eager": Contender(lambda: _by_hand(settings, objective, x, compiled=False)),
        BY_HAND: Contender(lambda: _by_hand(settings, objective, x, compiled=True)),
        STOCK: Contender(lambda: stock(settings, TraceMeanField_ELBO(), x), optional=True),
        "SVI, Trace_ELBO": Contender(lambda: stock(settings, Trace_ELBO(), x), optional=True),
        "SVI, JitTrace_ELBO": Contender(lambda: _jitted(settings, x), optional=True),
        "pythae": Contender(lambda: _pythae(name, settings, x), optional=True),
        "JAX": Contender(lambda: _jax(name, settings, x), optional=True),
    }


def pair(settings: Settings, x: Tensor) -> Triple:
    """Model, guide and ELBO of the settings, for training, where x is."""
    model, guide, elbo = make_triple(settings)
    return Triple(model.to(x.device).train(), guide.to(x.device).train(), elbo)


def ours(settings: Settings, x: Tensor, *, compiled: bool = True) -> Step:
    """The library's step, as a run makes it."""
    model, guide, elbo = pair(settings, x)
    module = elbo(model, guide)
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, fused=True, capturable=x.device.type == "cuda")
    with pyro.validation_enabled(False):
        step = compile_step(module, optimizer, x, mean=True, compile=compiled)
    return lambda: step(x)


def stock(settings: Settings, elbo: object, x: Tensor) -> Step:
    """Pyro's own step, with an ELBO of Pyro's."""
    model, guide, _ = pair(settings, x)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LR}), elbo)
    return lambda: svi.step(x)


def _by_hand(settings: Settings, objective: Objective, x: Tensor, *, compiled: bool) -> Step:
    model, guide, _ = pair(settings, x)
    networks = nn.ModuleList([guide.encoder, model.decoder])  # type: ignore[list-item]
    optimizer = torch.optim.Adam(networks.parameters(), lr=LR, fused=True)
    encoder, decoder = networks

    def loss(x: Tensor) -> Tensor:
        return objective(encoder, decoder, x) / len(x)

    # In one piece or not at all: a graph that breaks is no fair baseline.
    run = torch.compile(loss, fullgraph=True) if compiled else loss

    def step() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = run(x)
        value.backward()
        optimizer.step()
        return value

    return step


def _jitted(settings: Settings, x: Tensor) -> Step:
    step = stock(settings, JitTrace_ELBO(ignore_jit_warnings=True), x)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.trace` is deprecated")
        step()  # traces
    return step


def _pythae(name: str, settings: Settings, x: Tensor) -> Step:
    from benchmarks.pythae_step import pythae_step

    model, guide, _ = pair(settings, x)
    return pythae_step(name, guide.encoder, model.decoder, x, latent_dim=settings.latent_dim, lr=LR)  # type: ignore[arg-type]


def _jax(name: str, settings: Settings, x: Tensor) -> Step:
    from benchmarks.jax_step import jax_step

    model, guide, _ = pair(settings, x.cpu())
    return jax_step(name, guide.encoder, model.decoder, x.cpu().numpy(), lr=LR)  # type: ignore[arg-type]
