"""p(x|z) one pixel after another: the distribution that a decoder with ``sample`` makes."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions.constraints import Constraint

from pyro_avae.statistics import untouched_statistics
from pyro_avae.swapping import swapped_tensors

__all__ = ["Autoregressive", "AutoregressiveDecoder"]


@runtime_checkable
class AutoregressiveDecoder(Protocol):
    """What a decoder needs that models each pixel given those before it."""

    event_shape: tuple[int, ...]

    def __call__(self, z: Tensor, x: Tensor) -> Any:
        """The likelihood's parameters of every pixel, given z ``(B, L)`` and the pixels before it in x."""
        ...

    def sample(self, z: Tensor) -> Tensor:
        """Draw x given z ``(B, L)``, one pixel after another."""
        ...


class Autoregressive(TorchDistribution):
    r"""The distribution :math:`p(x|z) = \prod_i p(x_i | z, x_{<i})`.

    Its density costs one run of the decoder, its sample one for each pixel. A sample has no derivative with respect to
    z, and the mean of x has no closed form: :attr:`mean` is not implemented, :meth:`conditional_mean` is.

    Args:
        decoder: an :class:`AutoregressiveDecoder`, a module.
        likelihood: maps the decoder's output to a distribution over pixels.
        z: ``(..., L)``.
        constant: hold the decoder's and the likelihood's parameters constant.
    """

    arg_constraints: dict[str, Constraint] = {}  # noqa: RUF012  # torch's class attribute
    has_rsample = False

    def __init__(
        self, decoder: Any, likelihood: Callable[[Any], TorchDistribution], z: Tensor, *, constant: bool = False
    ) -> None:
        self._decoder, self._likelihood, self._z, self._constant = decoder, likelihood, z, constant
        super().__init__(z.shape[:-1], torch.Size(decoder.event_shape), validate_args=False)

    @property
    def support(self) -> Constraint | None:
        """That of the likelihood."""
        # In passing: it is no pass on data.
        with torch.no_grad(), untouched_statistics([self._decoder], use="running"):
            z = self._z.reshape(-1, self._z.shape[-1])[:1]
            pixels: Any = self._likelihood(self._decoder(z, z.new_zeros(1, *self.event_shape)))
        support: Constraint | None = pixels.support
        return support

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Autoregressive":
        """The same for z expanded to ``batch_shape``."""
        z = self._z.expand(torch.Size(batch_shape) + self._z.shape[-1:])
        return Autoregressive(self._decoder, self._likelihood, z, constant=self._constant)

    def conditionals(self, x: Tensor) -> TorchDistribution:
        """The distributions of all pixels, each given z and the pixels of x before it; ``(N, *event)``, N all rows."""
        shape = self._batch(x)
        z = self._z.expand(shape + self._z.shape[-1:]).reshape(-1, self._z.shape[-1])
        seen = x.expand(shape + self.event_shape).reshape(-1, *self.event_shape)
        if not self._constant:
            return self._likelihood(self._decoder(z, seen))
        parts = [part for part in (self._decoder, self._likelihood) if isinstance(part, nn.Module)]
        with swapped_tensors([module for part in parts for module in part.modules()], Tensor.detach):
            return self._likelihood(self._decoder(z, seen))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x|z), of the batch shape of z and x together."""
        shape = self._batch(value)
        pixels = self.conditionals(value)
        seen = value.expand(shape + self.event_shape).reshape(-1, *self.event_shape)
        found: Tensor = pixels.log_prob(seen)
        return found.flatten(1).sum(-1).reshape(shape)

    def conditional_mean(self, x: Tensor) -> Tensor:
        r""":math:`\mathbb E[x_i | z, x_{<i}]` for every pixel of x, ``(*batch, *event)``."""
        mean: Tensor = self.conditionals(x).mean
        return mean.reshape(self._batch(x) + self.event_shape)

    def _batch(self, x: Tensor) -> torch.Size:
        """The batch shape of z and x together."""
        return torch.broadcast_shapes(x.shape[: x.dim() - len(self.event_shape)], self.batch_shape)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008  # as in torch
        """Draw x, one pixel after another, without gradient."""
        shape = torch.Size(sample_shape) + self.batch_shape
        z = self._z.detach().expand(shape + self._z.shape[-1:]).reshape(-1, self._z.shape[-1])
        with torch.no_grad():
            x: Tensor = self._decoder.sample(z)
        return x.reshape(shape + self.event_shape)
