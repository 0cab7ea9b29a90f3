"""What of the posterior is optimised for one image: its parameters themselves, or the encoder that makes them."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyro_avae.evaluation.pair import Guide
from pyro_avae.swapping import swapped_tensors

__all__ = ["VARIANTS", "Adapted", "EncoderCopies", "FreePosterior", "Variant"]


class Adapted(Protocol):
    """q(z) of each image of a chunk, with free parameters of its own."""

    @property
    def parameters(self) -> Sequence[Tensor]:
        """Leaves that require gradients, each ``(B, ...)``: a row an image."""
        ...

    def posterior(self) -> tuple[Tensor, Tensor]:
        """``(loc, scale)`` of the parameters as they are, at first those of the guide."""
        ...


class Variant(Protocol):
    """Begins the optimisation of a chunk of images at the guide's posterior."""

    #: Step size of Adam that suits it.
    lr: float

    def __call__(self, guide: Guide, x: Tensor) -> Adapted: ...

    def values(self, guide: Guide, x: Tensor) -> int:
        """How many numbers an image's own parameters are."""
        ...


class FreePosterior:
    r"""Optimise :math:`\mu` and :math:`\log\sigma` of each image themselves.

    Args:
        full_covariance: let a diagonal posterior become a full one. A guide that has a full one keeps it.
        lr: step size of Adam.
    """

    def __init__(self, *, full_covariance: bool = False, lr: float = 0.05) -> None:
        self.full_covariance = full_covariance
        self.lr = lr

    def __call__(self, guide: Guide, x: Tensor) -> Adapted:
        with torch.no_grad():
            loc, scale = guide.encode(x)
        if self.full_covariance and scale.dim() == loc.dim():
            scale = torch.diag_embed(scale)
        return _Free(loc, scale)

    def values(self, guide: Guide, x: Tensor) -> int:
        """A location and a scale."""
        with torch.no_grad():
            loc, scale = guide.encode(x[:1])
        return loc.numel() * (loc.numel() if self.full_covariance else 1) + scale.numel()


class _Free:
    """Location, logarithms of the (Cholesky factor's) diagonal, and what lies below it."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self._full = scale.dim() > loc.dim()
        diagonal = scale.diagonal(dim1=-2, dim2=-1) if self._full else scale
        own = [loc, diagonal.log(), *([scale.tril(-1)] if self._full else [])]
        self.parameters = [tensor.detach().clone().requires_grad_() for tensor in own]

    def posterior(self) -> tuple[Tensor, Tensor]:
        loc, log_scale, *lower = self.parameters
        if not lower:
            return loc, log_scale.exp()
        return loc, lower[0].tril(-1) + torch.diag_embed(log_scale.exp())


class EncoderCopies:
    """Optimise a copy of the encoder for each image, all copies side by side; the encoder itself is not touched.

    Every parameter of the guide is copied, once for each image of a chunk. Running statistics stay those of training.

    Args:
        lr: step size of Adam; 2e-4 is the paper's.
    """

    def __init__(self, *, lr: float = 2e-4) -> None:
        self.lr = lr

    def __call__(self, guide: Guide, x: Tensor) -> Adapted:
        return _Copies(guide, x)

    def values(self, guide: Guide, x: Tensor) -> int:
        """The encoder's parameters."""
        return sum(parameter.numel() for parameter in guide.parameters())


class _Copies:
    """Stacked parameters ``(B, ...)``; image b is encoded with row b."""

    def __init__(self, guide: Guide, x: Tensor) -> None:
        self._guide, self._x = guide, x
        originals = [p for p in guide.parameters() if p.is_floating_point()]
        self._places = [id(parameter) for parameter in originals]
        self.parameters = [p.detach().expand(len(x), *p.shape).clone().requires_grad_() for p in originals]

    def posterior(self) -> tuple[Tensor, Tensor]:
        encoded: tuple[Tensor, Tensor] = torch.vmap(self._encode_one)(self.parameters, self._x)
        return encoded

    def _encode_one(self, parameters: Sequence[Tensor], image: Tensor) -> tuple[Tensor, Tensor]:
        own = dict(zip(self._places, parameters, strict=True))
        modules: list[nn.Module] = list(self._guide.modules())
        with swapped_tensors(modules, lambda tensor: own[id(tensor)]):
            loc, scale = self._guide.encode(image[None])
        return loc[0], scale[0]


VARIANTS: Mapping[str, Any] = {"free": FreePosterior(), "encoder": EncoderCopies()}
