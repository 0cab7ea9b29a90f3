"""The benchmarks measure what they say: the objectives written by hand are the library's."""

import sys
import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch

from pyro_avae.compilation import BaseNoise
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.train import make_triple

# No part of the installed package; behind everything else, so that the checkout hides nothing that is installed.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.handwritten import OBJECTIVES
from benchmarks.timing import interleaved, ratios


def noise_by_shape():
    """The n-th draw of a kind and shape is the same, whatever else is drawn: one of the two draws more."""
    counts = defaultdict(int)

    def draw(spec):
        counts[spec.kind, spec.shape] += 1
        name = f"{spec.kind} {spec.shape} {counts[spec.kind, spec.shape]}"
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        make = torch.randn if spec.kind == "normal" else torch.rand
        return make(spec.shape, generator=generator)

    return BaseNoise(draw)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_by_hand_is_the_library_s(name):
    objective, changes = OBJECTIVES[name]
    settings = settings_for({"dataset": "color-mnist", "hidden": (7,), "latent_dim": 3, **changes})
    model, guide, elbo = make_triple(settings)
    x = torch.rand(4, 3, 28, 28)
    parameters = [*guide.parameters(), *model.parameters()]
    found = []
    for loss in (lambda: elbo(model, guide)(x), lambda: objective(guide.encoder, model.decoder, x)):
        with pyro.validation_enabled(False), noise_by_shape():
            value = loss()
        found.append((value.detach(), torch.autograd.grad(value, parameters)))
    (one, gradients), (other, expected) = found
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    for gradient, same in zip(gradients, expected, strict=True):
        # Float32 sums of a few thousand pixels, in another order.
        torch.testing.assert_close(gradient, same, rtol=1e-3, atol=1e-4 * float(same.abs().max()))


def test_times_are_of_the_right_contender():
    spins = {"short": 200, "long": 20_000}
    calls = {name: lambda count=count: sum(range(count)) for name, count in spins.items()}
    times = interleaved(calls, repetitions=5, least_seconds=0.01, device=torch.device("cpu"))
    assert {name: len(each) for name, each in times.items()} == {"short": 5, "long": 5}
    low, middle, high = ratios(times, "long", "short")
    assert low <= middle <= high and middle > 5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_in_jax_is_the_one_by_hand(name):
    """Averages over many draws: the two have noise of their own."""
    pytest.importorskip("jax")
    import jax
    import jax.numpy as jnp

    from benchmarks.jax_step import LOSSES, weights_of

    objective, changes = OBJECTIVES[name]
    settings = settings_for({"dataset": "color-mnist", "hidden": (7,), "latent_dim": 3, **changes})
    model, guide, _ = make_triple(settings)
    x = torch.rand(4, 3, 28, 28)
    draws = 200
    by_hand = [float(objective(guide.encoder, model.decoder, x).detach()) for _ in range(draws)]
    weights, data = weights_of(guide.encoder, model.decoder), jnp.asarray(x.flatten(1).numpy())
    loss = jax.jit(LOSSES[name])
    in_jax = [float(loss(weights, data, key)) for key in jax.random.split(jax.random.key(0), draws)]
    error = (np.var(by_hand) / draws + np.var(in_jax) / draws) ** 0.5
    assert abs(np.mean(by_hand) - np.mean(in_jax)) < 5 * error
    assert np.std(by_hand) == pytest.approx(np.std(in_jax), rel=0.5)
