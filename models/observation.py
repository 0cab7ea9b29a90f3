"""The observation model p(x|z): a decoder and a likelihood, as one module."""

from collections.abc import Callable
from typing import Any

from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_avae.batching import apply_batched
from pyro_avae.errors import InputError
from pyro_avae.models.autoregressive import Autoregressive, AutoregressiveDecoder
from pyro_avae.swapping import swapped_tensors

__all__ = ["Likelihood", "Observation"]

Likelihood = Callable[[Any], TorchDistribution]


class Observation(nn.Module):
    r"""The lazy distribution :math:`p_\theta(x|z)`: calling it on z returns a Pyro distribution.

    Its parameters are all of :math:`\theta`, a learned observation variance included, so that
    :meth:`held_constant` needs to know nothing of what is inside.

    Args:
        decoder: maps ``(B, L)`` to the likelihood's parameters, a tensor or a tuple of tensors ``(B, ...)``; or an
            autoregressive decoder, called as ``decoder(z, x)``, which has ``sample(z)`` and ``event_shape``.
        likelihood: maps the decoder's output to a distribution over ``(B, *event)``; a module if it has parameters.

    Raises:
        InputError: ``decoder`` is not an ``nn.Module``, or ``likelihood`` cannot be called.
    """

    def __init__(self, decoder: nn.Module, likelihood: Likelihood) -> None:
        super().__init__()
        if not isinstance(decoder, nn.Module):
            raise InputError(f"decoder: expected a torch.nn.Module, got {type(decoder).__name__}")
        if not callable(likelihood):
            raise InputError(f"likelihood: expected a function of the decoder's output, got {likelihood!r}")
        self.decoder = decoder
        self.likelihood: Likelihood
        if any(part is likelihood for part in decoder.modules()):
            # The decoder samples with it: registered there, not a second time here.
            self.__dict__["likelihood"] = likelihood
        else:
            self.likelihood = likelihood

    def forward(self, z: Tensor) -> TorchDistribution:
        """Return p(x|z) for ``z`` ``(..., L)``: batch shape ``(...)``, event shape ``(*event)``."""
        if isinstance(self.decoder, AutoregressiveDecoder):
            return Autoregressive(self.decoder, self.likelihood, z)
        out = apply_batched(self.decoder, z, event_dim=1)
        distribution = self.likelihood(out)
        if not isinstance(distribution, TorchDistributionMixin):
            raise InputError(
                f"likelihood: expected it to return a Pyro distribution, got"
                f" {type(distribution).__name__}; use the classes of pyro.distributions"
            )
        event_dims = len(distribution.batch_shape) - (z.dim() - 1)
        if event_dims < 0:
            raise InputError(
                f"likelihood: batch shape {tuple(distribution.batch_shape)} lacks the batch of z, {tuple(z.shape[:-1])}"
            )
        return distribution.to_event(event_dims) if event_dims else distribution

    def held_constant(self, z: Tensor) -> TorchDistribution:
        r"""Return :math:`p_\theta(x|z)` with :math:`\theta` held constant: gradients run to z alone."""
        if isinstance(self.decoder, AutoregressiveDecoder):
            return Autoregressive(self.decoder, self.likelihood, z, constant=True)
        with swapped_tensors(self.modules(), Tensor.detach):
            distribution: TorchDistribution = self(z)
        return distribution
