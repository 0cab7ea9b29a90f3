"""The operation that adds a matrix product to a tensor in place, as a compiled graph calls it."""

import torch
from torch import Tensor

__all__ = ["add_product"]

_NAME = "pyro_avae::add_product"


def _added(into: Tensor, left: Tensor, right: Tensor) -> None:
    into.addmm_(left, right)


def _defined() -> torch.library.Library:
    # The lighter of torch's two ways to define one: it costs a few microseconds a call.
    library = torch.library.Library("pyro_avae", "FRAGMENT")
    library.define("add_product(Tensor(a!) into, Tensor left, Tensor right) -> ()")
    library.impl("add_product", _added, "CompositeExplicitAutograd")
    torch.library.register_fake(_NAME, lambda into, left, right: None, lib=library)
    return library


_LIBRARY = _defined()

#: ``(into, left, right)``: adds ``left @ right``.
add_product = torch.ops.pyro_avae.add_product.default
