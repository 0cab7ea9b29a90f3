"""The objectives in JAX, for the fully connected networks: needs ``pip install jax``.

Parameters are those of the torch pair, copied; the optimiser is Adam, written out; the whole step is one ``jax.jit``.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from torch import nn

from benchmarks.handwritten import EPSILON, NU, RHO, STEPS
from pyro_avae.errors import InputError

__all__ = ["LOSSES", "jax_step", "weights_of"]

Array = Any
Parameters = Any

#: ``(parameters, x, key)`` to the loss, summed over the batch.
Loss = Callable[[Parameters, Array, Array], Array]


def weights_of(encoder: nn.Module, decoder: nn.Module) -> Parameters:
    """The weights of both networks: (encoder, decoder), each a list of (matrix, offset).

    Raises:
        InputError: a network with convolutions.
    """
    for part in (*encoder.modules(), *decoder.modules()):
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            raise InputError(f"JAX: expected fully connected networks, got {type(part).__name__}")
    return tuple(
        [
            (jnp.asarray(part.weight.detach().numpy().T), jnp.asarray(part.bias.detach().numpy()))
            for part in network.modules()
            if isinstance(part, nn.Linear)
        ]
        for network in (encoder, decoder)
    )


def _network(layers: Parameters, h: Array) -> Array:
    for matrix, offset in layers[:-1]:
        h = jax.nn.relu(h @ matrix + offset)
    matrix, offset = layers[-1]
    return h @ matrix + offset


def encode(layers: Parameters, x: Array) -> tuple[Array, Array]:
    """Location and scale of q(z|x)."""
    loc, raw = jnp.split(_network(layers, x), 2, axis=-1)
    return loc, jnp.exp(0.5 * 20 * jnp.tanh(raw / 20))


def decode(layers: Parameters, z: Array) -> Array:
    """The mean of p(x|z)."""
    return jax.nn.sigmoid(_network(layers, z))


def _plain(parameters: Parameters, x: Array, key: Array) -> tuple[Array, Array, Array, Array, Array]:
    encoder, decoder = parameters
    loc, scale = encode(encoder, x)
    z = loc + scale * jax.random.normal(key, loc.shape)
    decoded = decode(decoder, z)
    kl = 0.5 * (loc**2 + scale**2 - 1 - 2 * jnp.log(scale)).sum()
    constant = 0.5 * x.size * math.log(2 * math.pi * NU)
    return kl + ((x - decoded) ** 2).sum() / (2 * NU) + constant, z, decoded, loc, scale


def _consistency(encoder: Parameters, seen: Array, z: Array) -> Array:
    loc, scale = encode(encoder, seen)
    rest = 1 - RHO**2
    return 0.5 * ((scale**2 + (loc - RHO * z) ** 2) / rest - 1 - 2 * jnp.log(scale) + math.log(rest)).sum()


def _worst_case(encoder: Parameters, x: Array, loc: Array, scale: Array, key: Array) -> Array:
    encoder, loc, scale = jax.lax.stop_gradient((encoder, loc, scale))
    low, high = jnp.clip(x - EPSILON, min=0), jnp.clip(x + EPSILON, max=1)

    def distance(current: Array) -> Array:
        there, wide = encode(encoder, current)
        return ((there - loc) ** 2 + (wide - scale) ** 2).sum()

    current = jnp.clip(x + (2 * jax.random.uniform(key, x.shape) - 1) * EPSILON, low, high)
    for _ in range(STEPS):
        current = jnp.clip(current + 2.5 * EPSILON / STEPS * jnp.sign(jax.grad(distance)(current)), low, high)
    return jax.lax.stop_gradient(current)


def vae(parameters: Parameters, x: Array, key: Array) -> Array:
    """Minus the VAE's bound."""
    return _plain(parameters, x, key)[0]


def _avae(parameters: Parameters, x: Array, key: Array, *, cut: bool) -> tuple[Array, Array, Array, Array]:
    encoder, decoder = parameters
    key, noise = jax.random.split(key)
    loss, z, decoded, loc, scale = _plain(parameters, x, key)
    seen = jax.lax.stop_gradient(decoded) if cut else decode(jax.lax.stop_gradient(decoder), z)
    seen = seen + math.sqrt(NU) * jax.random.normal(noise, seen.shape)
    return loss + _consistency(encoder, seen, z), z, loc, scale


def avae(parameters: Parameters, x: Array, key: Array) -> Array:
    """Minus the AVAE's, gradient through z."""
    return _avae(parameters, x, key, cut=False)[0]


def avae_cut(parameters: Parameters, x: Array, key: Array) -> Array:
    """Minus the AVAE's, gradient cut at the view."""
    return _avae(parameters, x, key, cut=True)[0]


def se(parameters: Parameters, x: Array, key: Array) -> Array:
    """Minus the smooth encoder's."""
    key, start = jax.random.split(key)
    loss, z, _, loc, scale = _plain(parameters, x, key)
    return loss + _consistency(parameters[0], _worst_case(parameters[0], x, loc, scale, start), z)


def se_avae(parameters: Parameters, x: Array, key: Array) -> Array:
    """Both."""
    key, start = jax.random.split(key)
    loss, z, loc, scale = _avae(parameters, x, key, cut=False)
    return loss + _consistency(parameters[0], _worst_case(parameters[0], x, loc, scale, start), z)


#: By the names of :data:`benchmarks.handwritten.OBJECTIVES`.
LOSSES: dict[str, Loss] = {"vae": vae, "avae": avae, "avae, cut": avae_cut, "se": se, "se-avae": se_avae}


def jax_step(name: str, encoder: nn.Module, decoder: nn.Module, x: np.ndarray, *, lr: float) -> Callable[[], Array]:
    """One step of Adam on the mean loss; each call waits for its result."""
    loss = LOSSES[name]
    data = jnp.asarray(x.reshape(len(x), -1))

    @jax.jit
    def step(state: Any, key: Array) -> tuple[Any, Array]:
        parameters, first, second, count = state
        value, gradients = jax.value_and_grad(lambda p: loss(p, data, key) / len(data))(parameters)
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, gradients)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g**2, second, gradients)

        def moved(p: Array, m: Array, v: Array) -> Array:
            return p - lr * (m / (1 - 0.9**count)) / (jnp.sqrt(v / (1 - 0.999**count)) + 1e-8)

        return (jax.tree.map(moved, parameters, first, second), first, second, count), value

    parameters = weights_of(encoder, decoder)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, zeros, jnp.zeros(()))
    key = jax.random.key(0)

    def run() -> Array:
        nonlocal state, key
        key, now = jax.random.split(key)
        state, value = step(state, now)
        return value.block_until_ready()

    return run
