"""The objectives in plain torch, without Pyro: what a step costs that has nothing but its mathematics.

The networks are the library's; the worst case is searched with the same steps. A view is decoded once, its values
detached from the decoder's parameters by a second pass of gradients alone, as the library's traced step has it. An
objective can be compiled in one piece, the search for a worst case included.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["OBJECTIVES", "Objective"]

#: ``(encoder, decoder, x)`` to the loss, summed over the batch, with its graph.
Objective = Callable[[nn.Module, nn.Module, Tensor], Tensor]

NU, RHO, EPSILON, STEPS = 0.5, 0.975, 0.1, 5


def _plain(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Minus the VAE's bound, and what the consistency terms start from."""
    loc, scale = encoder(x)
    z = loc + scale * torch.randn_like(loc)
    decoded = decoder(z)
    kl = 0.5 * (loc.square() + scale.square() - 1 - 2 * scale.log()).sum()
    constant = 0.5 * x.numel() * math.log(2 * math.pi * NU)
    return kl + (x - decoded).square().sum() / (2 * NU) + constant, z, decoded, loc, scale


def _consistency(encoder: nn.Module, seen: Tensor, z: Tensor) -> Tensor:
    loc, scale = encoder(seen)
    rest = 1 - RHO**2
    return 0.5 * ((scale.square() + (loc - RHO * z).square()) / rest - 1 - 2 * scale.log() + math.log(rest)).sum()


def _constant(network: nn.Module, given: Tensor) -> Any:
    """What the network makes of it, its parameters held constant."""
    constant = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return torch.func.functional_call(network, constant, (given,))


def _gradient(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The gradient of a function into the reals, without a graph of its own."""
    # torch.autograd.grad breaks the graph of torch.compile, and a step is then slower than eager by an order of
    # magnitude or two; torch.func.grad does not, but is the slower of the two when run eagerly.
    if torch.compiler.is_compiling():
        gradient: Tensor = torch.func.grad(function)(at)
        return gradient
    at = at.detach().requires_grad_()
    return torch.autograd.grad(function(at), at)[0]


def _worst_case(encoder: nn.Module, x: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    loc, scale = loc.detach(), scale.detach()

    def distance(current: Tensor) -> Tensor:
        there, wide = _constant(encoder, current)
        return ((there - loc).square() + (wide - scale).square()).sum()

    low, high = (x - EPSILON).clamp(min=0), (x + EPSILON).clamp(max=1)
    current = torch.minimum(torch.maximum(x + (2 * torch.rand_like(x) - 1) * EPSILON, low), high)
    for _ in range(STEPS):
        step = 2.5 * EPSILON / STEPS * _gradient(distance, current).sign()
        current = torch.minimum(torch.maximum(current + step, low), high)
    return current.detach()


def vae(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Minus the VAE's bound."""
    return _plain(encoder, decoder, x)[0]


def avae(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Minus the AVAE's, gradient through z."""
    loss, z, *_ = _plain(encoder, decoder, x)
    seen = _constant(decoder, z)
    return loss + _consistency(encoder, seen + math.sqrt(NU) * torch.randn_like(seen), z)


def avae_cut(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Minus the AVAE's, gradient cut at the view."""
    loss, z, decoded, *_ = _plain(encoder, decoder, x)
    seen = decoded.detach()
    return loss + _consistency(encoder, seen + math.sqrt(NU) * torch.randn_like(seen), z)


def se(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Minus the smooth encoder's."""
    loss, z, _, loc, scale = _plain(encoder, decoder, x)
    return loss + _consistency(encoder, _worst_case(encoder, x, loc, scale), z)


def se_avae(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Both."""
    loss, z, _, loc, scale = _plain(encoder, decoder, x)
    seen = _constant(decoder, z)
    loss = loss + _consistency(encoder, seen + math.sqrt(NU) * torch.randn_like(seen), z)
    return loss + _consistency(encoder, _worst_case(encoder, x, loc, scale), z)


#: By the name of the method, and the settings that it differs by.
OBJECTIVES: dict[str, tuple[Objective, dict[str, Any]]] = {
    "vae": (vae, {"method": "vae"}),
    "avae": (avae, {"method": "avae"}),
    "avae, cut": (avae_cut, {"method": "avae", "gradient": "cut"}),
    "se": (se, {"method": "se"}),
    "se-avae": (se_avae, {"method": "se-avae"}),
}
