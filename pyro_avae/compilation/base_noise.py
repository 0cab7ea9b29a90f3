"""Every random number of a program as an input: which ones it wants, and where they come from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pyro_avae.compilation.noise_blocks import fill_in_blocks
from pyro_avae.compilation.random_ops import NORMAL, as_function_of_noise, is_random
from pyro_avae.randomness import stream_seed

__all__ = ["BaseNoise", "Noise", "NoiseSource", "NoiseSpec"]


@dataclass(frozen=True)
class NoiseSpec:
    """One tensor of standard noise.

    Attributes:
        kind: ``"normal"`` or ``"uniform"``.
        shape: its shape.
        dtype: its dtype.
        device: where it is wanted.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class BaseNoise(TorchDispatchMode):
    """Inside it, torch's random operations take their noise from ``draw`` and compute the rest.

    It sees what reaches torch's dispatcher: ``rsample`` and ``sample`` of every distribution, ``torch.rand_like``,
    dropout, whoever calls them.

    Args:
        draw: gives the noise of a :class:`NoiseSpec`, asked in the program's order.
        otherwise: ``(operation, args, kwargs)``, called for a random operation that is no function of standard noise;
            by default it runs as ever, from torch's own generators.

    Example:
        >>> with BaseNoise(lambda spec: torch.full(spec.shape, 2.0)):
        ...     torch.distributions.Normal(1.0, 3.0).sample((2,))
        tensor([7., 7.])
    """

    def __init__(
        self,
        draw: Callable[[NoiseSpec], Tensor],
        *,
        otherwise: Callable[[Any, Sequence[Any], Mapping[str, Any]], Any] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._draw, self._otherwise = draw, otherwise

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not is_random(func):
            return func(*args, **kwargs)
        function = as_function_of_noise(func, args, kwargs)
        if function is not None:
            return function(self._drawn)
        return func(*args, **kwargs) if self._otherwise is None else self._otherwise(func, args, kwargs)

    def _drawn(self, kind: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        return self._draw(NoiseSpec(kind, tuple(shape), dtype, device))


class Noise(Protocol):
    """Where the standard noise of steps comes from."""

    def start(self, step: int) -> None:
        """Begin the draws of step 1, 2, ..."""

    def draw(self, spec: NoiseSpec) -> Tensor:
        """The next noise of this step."""
        ...

    def fill(self, spec: NoiseSpec, into: Tensor) -> Tensor:
        """:meth:`draw` into a tensor that is there."""
        ...


class NoiseSource:
    """The standard noise of a run: that of step n depends on the seed, n and the order of the draws, on nothing else.

    A resumed run goes on with the right noise, a compiled step has that of an eager one, and each of several seeds
    trained at once has that of its single run. Generators of a CPU and of a GPU differ.

    Args:
        seed: the run's seed.

    Example:
        >>> spec, source = NoiseSpec("normal", (3,), torch.float32, torch.device("cpu")), NoiseSource(0)
        >>> source.start(7)
        >>> first = source.draw(spec)
        >>> source.start(7)
        >>> torch.equal(first, source.draw(spec)), torch.equal(first, source.draw(spec))
        (True, False)
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._step_seed = stream_seed(seed, "noise")
        self._generators: dict[torch.device, torch.Generator] = {}
        self._seeded: set[torch.device] = set()

    def start(self, step: int) -> None:
        """Begin the draws of step 1, 2, ..."""
        self._step_seed = stream_seed(self.seed, "noise", step)
        self._seeded.clear()

    def draw(self, spec: NoiseSpec) -> Tensor:
        """The next noise of this step."""
        return self.fill(spec, torch.empty(spec.shape, dtype=spec.dtype, device=spec.device))

    def fill(self, spec: NoiseSpec, into: Tensor) -> Tensor:
        """:meth:`draw` into a tensor that is there."""
        generator = self._generator(spec.device)
        if spec.device.type == "cpu":
            return fill_in_blocks(into, spec.kind, generator)
        return into.normal_(generator=generator) if spec.kind == NORMAL else into.uniform_(generator=generator)

    def _generator(self, device: torch.device) -> torch.Generator:
        generator = self._generators.get(device)
        if generator is None:
            generator = self._generators[device] = torch.Generator(device)
        if device not in self._seeded:
            self._seeded.add(device)
            generator.manual_seed(self._step_seed)
        return generator
