"""A small pair, made the same at every call."""

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import ExtendedVAE, Gaussian, MLPDecoder

SHAPE = (1, 4, 4)


@pytest.fixture
def make_pair() -> Callable[..., tuple[nn.Module, nn.Module]]:
    """A small AVAE whose initial parameters depend on ``seed`` alone."""

    def make(*, seed: int = 0, rho: float | str = 0.9, learned_variance: bool = False) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = ExtendedVAE(
                MLPDecoder(3, SHAPE, hidden=[8]),
                latent_dim=3,
                rho=rho,
                likelihood=Gaussian(obs_variance=0.2, learned=learned_variance),
            )
            return model, AVAEGuide(MLPEncoder(SHAPE, 3, hidden=[8]), model)

    return make


class Died(BaseException):
    """Like a kill, and unlike an error, it has nothing tidied up."""


@pytest.fixture(scope="session")
def died() -> type[BaseException]:
    """What :func:`die_at` raises."""
    return Died


@pytest.fixture(scope="session")
def die_at() -> Callable[[int], Callable[[Mapping[str, float]], None]]:
    """Makes a callback that ends a run at a step without any saving, as far as one process can."""

    def make(step: int) -> Callable[[Mapping[str, float]], None]:
        def callback(row: Mapping[str, float]) -> None:
            if row["step"] >= step:
                raise Died

        return callback

    return make


@pytest.fixture(scope="session")
def spoil_view() -> Callable[..., None]:
    """Has a guide's auxiliary view multiplied by ``factor`` at one call, and (``fails``) fail at any later one."""

    def spoil(guide: nn.Module, *, call: int, factor: float, fails: bool = False) -> None:
        calls = count(1)
        forward = guide.views["aux"]

        def spoiled(*args: Any, **kwargs: Any) -> Tensor:
            number = next(calls)
            if fails and number > call:
                raise RuntimeError("called once too often")
            view = forward(*args, **kwargs)
            return view * factor if number == call else view

        guide.views["aux"] = spoiled

    return spoil
