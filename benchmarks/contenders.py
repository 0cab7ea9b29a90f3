"""The contenders: one step each of the same pair on the same batch."""

import importlib.util
from collections.abc import Callable

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from torch import Tensor, nn

from benchmarks.handwritten import Objective
from pyro_avae.compilation import compile_step
from pyro_avae.experiments.train import make_triple
from pyro_avae.runs.settings import Settings

__all__ = ["contenders"]

LR = 1e-4


def contenders(name: str, settings: Settings, objective: Objective, x: Tensor) -> dict[str, Callable[[], object]]:
    """Each makes a step of its own copy of the pair; JAX where it is installed and the networks are fully connected."""
    made: dict[str, Callable[[], object]] = {
        "ours, eager": _ours(settings, x, compiled=False),
        "ours, compiled": _ours(settings, x, compiled=True),
        "torch by hand, eager": _by_hand(settings, objective, x, compiled=False),
        "torch by hand, compiled": _by_hand(settings, objective, x, compiled=True),
        "SVI, TraceMeanField_ELBO": _stock(settings, TraceMeanField_ELBO(), x),
        "SVI, Trace_ELBO": _stock(settings, Trace_ELBO(), x),
    }
    if settings.architecture == "mlp" and importlib.util.find_spec("jax") is not None:
        from benchmarks.jax_step import jax_step

        model, guide, _ = _pair(settings, x.cpu())
        made["JAX"] = jax_step(name, guide.encoder, model.decoder, x.cpu().numpy(), lr=LR)  # type: ignore[arg-type]
    return made


def _pair(settings: Settings, x: Tensor) -> tuple[nn.Module, nn.Module, object]:
    model, guide, elbo = make_triple(settings)
    return model.to(x.device).train(), guide.to(x.device).train(), elbo


def _ours(settings: Settings, x: Tensor, *, compiled: bool) -> Callable[[], object]:
    model, guide, elbo = _pair(settings, x)
    module = elbo(model, guide)  # type: ignore[operator]
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, fused=True)
    with pyro.validation_enabled(False):
        step = compile_step(module, optimizer, x, mean=True, compile=compiled)
    return lambda: step(x)


def _by_hand(settings: Settings, objective: Objective, x: Tensor, *, compiled: bool) -> Callable[[], object]:
    model, guide, _ = _pair(settings, x)
    networks = nn.ModuleList([guide.encoder, model.decoder])  # type: ignore[list-item]
    optimizer = torch.optim.Adam(networks.parameters(), lr=LR, fused=True)
    encoder, decoder = networks

    def loss(x: Tensor) -> Tensor:
        return objective(encoder, decoder, x) / len(x)

    run = torch.compile(loss) if compiled else loss

    def step() -> Tensor:
        optimizer.zero_grad()
        value: Tensor = run(x)
        value.backward()
        optimizer.step()
        return value

    return step


def _stock(settings: Settings, elbo: object, x: Tensor) -> Callable[[], object]:
    model, guide, _ = _pair(settings, x)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": LR}), elbo)
    return lambda: svi.step(x)
