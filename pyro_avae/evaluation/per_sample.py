"""The gradient of the loss of each image by itself, for any model, guide and ELBO."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from pyro.infer import ELBO
from torch import Tensor, nn
from torch.func import vmap

from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.check import check_trace
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.trace import trace_program
from pyro_avae.errors import InputError

__all__ = ["LossGradients", "PerSampleGradients", "images_at_once"]


class LossGradients(NamedTuple):
    """For each of B images.

    Attributes:
        loss: mean over the draws, nats, ``(B,)``.
        gradients: of that loss, with respect to all P trainable parameters, ``(B, P)``.
    """

    loss: Tensor
    gradients: Tensor


class PerSampleGradients:
    r"""Loss and gradient of every image by itself, for any Pyro model, guide and ELBO whose rows are independent.

    .. math:: \hat\ell(x; \theta) = \frac1m \sum_{j \le m} -\mathrm{ELBO}(x, \epsilon_j; \theta), \qquad
        g(x) = \nabla_\theta \hat\ell(x; \theta)

    with standard noise :math:`\epsilon_j` that is an argument. The loss of a batch of m copies of one image is traced
    once, through Pyro's handlers (:func:`~pyro_avae.compilation.compile_step`'s trace), checked against the eager one,
    and mapped over images and noise by ``torch.func.vmap``: no term of a bound is written down a second time here.

    Model and guide are used as they are at each call, so that other parameters may be put into them; bring them into
    eval mode before. A parameter that the loss does not depend on has no part in the gradient.

    Args:
        model: a Pyro model that is a module.
        guide: a Pyro guide that is a module.
        elbo: any Pyro ELBO with ``differentiable_loss``.
        image: one image ``(*event)``, of the shape, dtype and device of those to come.
        draws: m.

    Raises:
        InputError: no parameters, or a program that cannot be traced.

    Attributes:
        specs: the noise of one image's m draws.
        size: P.

    Example:
        >>> from pyro_avae import AVAE_ELBO
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> model, guide = VAE(nn.Linear(1, 4), latent_dim=1), AmortizedGuide(LinearEncoder(4, 1))
        >>> of = PerSampleGradients(model, guide, AVAE_ELBO(), torch.zeros(4), draws=3)
        >>> noise = of.noise(NoiseSource(0), range(5))
        >>> of(torch.zeros(5, 4), noise).gradients.shape[0], of.size == of(torch.zeros(5, 4), noise).gradients.shape[1]
        (5, True)
    """

    def __init__(self, model: nn.Module, guide: nn.Module, elbo: ELBO, image: Tensor, *, draws: int) -> None:
        program = Program(elbo(model, guide), mean=True)
        if not program.parameters:
            raise InputError("model and guide: expected parameters that require grad, found none")
        copies = image.expand(draws, *image.shape).contiguous()
        self._program, self._draws = program, draws
        self._traced = trace_program(program, [copies])
        check_trace(self._traced, program, [copies])
        self.specs = self._traced.specs
        self.size = sum(parameter.numel() for parameter, used in zip(self._parameters, self._used, strict=True) if used)

    @property
    def names(self) -> list[str]:
        """The parameters that the gradient consists of, in order: ``0.NAME`` of the model, ``1.NAME`` of the guide."""
        return [name for name, used in zip(self._program.parameters, self._used, strict=True) if used]

    def noise(self, source: NoiseSource, numbers: Sequence[int]) -> list[Tensor]:
        """The noise of the images with these numbers: each image's depends on its own alone, not on the others."""
        found = [torch.empty((len(numbers), *spec.shape), dtype=spec.dtype, device=spec.device) for spec in self.specs]
        for row, number in enumerate(numbers):
            source.start(number)
            for spec, whole in zip(self.specs, found, strict=True):
                source.fill(spec, whole[row])
        return found

    def __call__(self, images: Tensor, noise: Sequence[Tensor]) -> LossGradients:
        """Losses and gradients of ``images (B, *event)`` at the parameters as they are, with ``noise`` for each."""
        with torch.no_grad(), warnings.catch_warnings():
            # An operation that vmap runs image by image: slower, and as right.
            warnings.filterwarnings("ignore", message="There is a performance drop")
            loss, gradients = vmap(self._of_one)(images, list(noise))
        return LossGradients(loss, gradients)

    def _of_one(self, image: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        copies = image.expand(self._draws, *image.shape)
        outputs = self._traced.graph(*self._parameters, *self._program.buffers, *noise, *self._traced.constants, copies)
        loss, _, gradients, *_ = outputs
        return loss, torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])

    @property
    def _parameters(self) -> list[Tensor]:
        return [parameter.detach() for parameter in self._program.parameters.values()]

    @property
    def _used(self) -> list[bool]:
        (output,) = (node for node in self._traced.graph.graph.nodes if node.op == "output")
        gradients: Sequence[object] = output.args[0][2]
        return [gradient is not None for gradient in gradients]


def images_at_once(size: int, device: torch.device) -> int:
    """How many gradients of ``size`` numbers are held at once: 32 MiB on a CPU (more cost page faults), else 1 GiB."""
    numbers = 2**23 if device.type == "cpu" else 2**28
    return max(1, min(512, math.floor(numbers / max(size, 1))))
