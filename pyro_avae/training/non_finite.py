"""What became NaN or infinite first in a step."""

from collections.abc import Mapping
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor, nn

from pyro_avae.compilation.base_noise import BaseNoise, Noise
from pyro_avae.compilation.program import Program

__all__ = ["NonFiniteError", "first_site", "gradient_of"]

_OWNERS = ("model", "guide")


class NonFiniteError(FloatingPointError):
    """The loss, a gradient or a parameter became NaN or infinite."""


def first_site(program: Program, noise: Noise, number: int, *args: Any) -> str | None:
    """The first Pyro site of a step whose value or log density is not finite, in the order of guide, then model.

    The step is run again with its own noise, which has to come before its update of the parameters.

    Args:
        program: of the step.
        noise: of the run.
        number: of the step.
        args: of the step.

    Returns:
        What is wrong with which site, as ``"the value of site 'z' of the guide is nan"``; None where all are finite.
    """
    noise.start(number)
    with pyro.validation_enabled(False), program.autocasting(), BaseNoise(noise.draw):
        args = program.prepared(*args)
        guide = poutine.trace(program.module.guide).get_trace(*args)
        model = poutine.trace(poutine.replay(program.module.model, trace=guide)).get_trace(*args)
    for name, trace in (("guide", guide), ("model", model)):
        site: Any  # Pyro's messages are typed for what is yet to be sampled
        for site in trace.nodes.values():
            if site["type"] != "sample" or not isinstance(site["value"], Tensor):
                continue
            numbers = {"value": site["value"], "log density": site["fn"].log_prob(site["value"])}
            for what, found in numbers.items():
                wrong = found[~found.isfinite()]
                if len(wrong):
                    return f"the {what} of site {site['name']!r} of the {name} is {float(wrong[0].detach())}"
    return None


def gradient_of(parameters: Mapping[str, nn.Parameter]) -> str | None:
    """The first parameter whose gradient is not finite, as ``"the gradient of model.scale is inf"``; None without.

    Args:
        parameters: as :func:`~pyro_avae.parameters.trainable` names those of model and guide.
    """
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            wrong = parameter.grad[~parameter.grad.isfinite()]
            if len(wrong):
                number, _, inside = name.partition(".")
                return f"the gradient of {_OWNERS[int(number)]}.{inside} is {float(wrong[0])}"
    return None
