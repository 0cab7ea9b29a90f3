r"""torch's random operations as functions of standard noise: :math:`\mathcal N(0, 1)` or uniform on [0, 1)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["NORMAL", "UNIFORM", "Draw", "as_function_of_noise", "is_random"]

#: The kinds of standard noise.
NORMAL, UNIFORM = "normal", "uniform"

#: ``(kind, shape, dtype, device)`` to standard noise.
Draw = Callable[[str, Sequence[int], torch.dtype, torch.device], Tensor]

_Function = Callable[[Draw, dict[str, Any]], Any]

_aten = torch.ops.aten

#: Random operations that torch does not mark as such.
_UNTAGGED = (_aten._sample_dirichlet.default, _aten.binomial.default)


def is_random(op: Any) -> bool:
    """Whether an operation draws random numbers.

    Example:
        >>> is_random(torch.ops.aten.randn.default), is_random(torch.ops.aten.add.Tensor)
        (True, False)
    """
    return torch.Tag.nondeterministic_seeded in op.tags or op in _UNTAGGED


def as_function_of_noise(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[Draw], Any] | None:
    """What a random operation computes, given standard noise; None for one that has no such form here.

    It has none where the operation takes a generator of its own, and for gamma, Dirichlet, binomial and Poisson
    variables (their samplers reject), permutations and draws without replacement.

    Args:
        op: an overload, e.g. ``torch.ops.aten.bernoulli.default``.
        args: its arguments.
        kwargs: its keyword arguments.

    Example:
        >>> made = as_function_of_noise(torch.ops.aten.normal.float_Tensor, (1.0, torch.tensor([2.0])), {})
        >>> made(lambda kind, shape, dtype, device: torch.full(shape, 3.0, dtype=dtype))
        tensor([7.])
    """
    function = _FUNCTIONS.get(op)
    given = _by_name(op, args, kwargs)
    if function is None or given.get("generator") is not None:
        return None
    if op is _aten.multinomial.default and not given["replacement"]:
        return None
    return lambda draw: function(draw, given)


def _by_name(op: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Every argument by the name that the operation's schema gives it, defaults included."""
    schema = op._schema.arguments
    given = {argument.name: argument.default_value for argument in schema}
    given.update({argument.name: value for argument, value in zip(schema, args, strict=False)})
    return {**given, **kwargs}


def _like(draw: Draw, kind: str, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Noise of a tensor's shape and device, in its dtype or, where that is no floating one, in torch's default."""
    wanted = dtype or tensor.dtype
    return draw(kind, tensor.shape, wanted if wanted.is_floating_point else torch.get_default_dtype(), tensor.device)


def _sized(draw: Draw, kind: str, a: dict[str, Any]) -> Tensor:
    """Noise of the arguments' size, dtype and device."""
    device = torch.device("cpu") if a.get("device") is None else torch.device(a["device"])
    return draw(kind, a["size"], a.get("dtype") or torch.get_default_dtype(), device)


def _normal(draw: Draw, a: dict[str, Any]) -> Tensor:
    mean, std = a["mean"], a["std"]
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
    return mean + std * draw(NORMAL, shape, tensors[0].dtype, tensors[0].device)


def _bernoulli(draw: Draw, tensor: Tensor, p: Tensor | float) -> Tensor:
    """1 with probability p, of the tensor's shape and dtype."""
    return (_like(draw, UNIFORM, tensor) < p).to(tensor.dtype)


def _dropout(draw: Draw, a: dict[str, Any]) -> tuple[Tensor, Tensor]:
    x, p = a["input"], a["p"]
    if a["train"] is False or p == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    kept = _like(draw, UNIFORM, x) < 1 - p
    return x * kept * (0.0 if p == 1 else 1 / (1 - p)), kept


def _exponential(draw: Draw, tensor: Tensor) -> Tensor:
    """Of rate 1; never 0, whose logarithm a Gumbel variable takes."""
    u = _like(draw, UNIFORM, tensor)
    return -torch.log1p(-u).clamp(max=-torch.finfo(u.dtype).tiny)


def _integers(low: int | Tensor, high: int | Tensor, u: Tensor, dtype: torch.dtype) -> Tensor:
    return (low + torch.floor(u * (high - low))).to(dtype)


def _randint(draw: Draw, a: dict[str, Any]) -> Tensor:
    u = _sized(draw, UNIFORM, {**a, "dtype": torch.float64})
    # The schema's default is torch's internal number of int64.
    dtype = a["dtype"] if isinstance(a["dtype"], torch.dtype) else torch.int64
    return _integers(a.get("low") or 0, a["high"], u, dtype)


def _randint_like(draw: Draw, a: dict[str, Any]) -> Tensor:
    u = _like(draw, UNIFORM, a["self"], torch.float64)
    return _integers(a.get("low") or 0, a["high"], u, a.get("dtype") or a["self"].dtype)


def _multinomial(draw: Draw, a: dict[str, Any]) -> Tensor:
    """With replacement: where uniform numbers fall among the cumulated probabilities."""
    p = a["self"]
    steps = p.double().cumsum(-1)
    u = draw(UNIFORM, (*p.shape[:-1], a["num_samples"]), torch.float64, p.device)
    found = torch.searchsorted(steps, u * steps[..., -1:], right=True)
    return found.clamp(max=p.shape[-1] - 1)


def _in_place(function: _Function) -> _Function:
    return lambda draw, a: a["self"].copy_(function(draw, a))


_in_the_place_of_self: Mapping[str, _Function] = {
    "normal": lambda draw, a: a["mean"] + a["std"] * _like(draw, NORMAL, a["self"]),
    "uniform": lambda draw, a: a["from"] + (a["to"] - a["from"]) * _like(draw, UNIFORM, a["self"]),
    "exponential": lambda draw, a: _exponential(draw, a["self"]) / a["lambd"],
    "cauchy": lambda draw, a: a["median"] + a["sigma"] * torch.tan(math.pi * (_like(draw, UNIFORM, a["self"]) - 0.5)),
    "log_normal": lambda draw, a: torch.exp(a["mean"] + a["std"] * _like(draw, NORMAL, a["self"])),
    "geometric": lambda draw, a: torch.ceil(_exponential(draw, a["self"]) / -math.log1p(-a["p"])),
    "bernoulli": lambda draw, a: _bernoulli(draw, a["self"], a["p"]),
}

_FUNCTIONS: Mapping[Any, _Function] = {
    _aten.normal.Tensor_Tensor: _normal,
    _aten.normal.Tensor_float: _normal,
    _aten.normal.float_Tensor: _normal,
    _aten.normal.float_float: lambda draw, a: a["mean"] + a["std"] * _sized(draw, NORMAL, a),
    _aten.normal_functional.default: _in_the_place_of_self["normal"],
    _aten.randn.default: lambda draw, a: _sized(draw, NORMAL, a),
    _aten.randn.generator: lambda draw, a: _sized(draw, NORMAL, a),
    _aten.rand.default: lambda draw, a: _sized(draw, UNIFORM, a),
    _aten.rand.generator: lambda draw, a: _sized(draw, UNIFORM, a),
    _aten.randn_like.default: lambda draw, a: _like(draw, NORMAL, a["self"], a["dtype"]),
    _aten.rand_like.default: lambda draw, a: _like(draw, UNIFORM, a["self"], a["dtype"]),
    _aten.randint.default: _randint,
    _aten.randint.low: _randint,
    _aten.randint.generator: _randint,
    _aten.randint.low_generator: _randint,
    _aten.randint_like.default: _randint_like,
    _aten.randint_like.low_dtype: _randint_like,
    _aten.bernoulli.default: lambda draw, a: _bernoulli(draw, a["self"], a["self"]),
    _aten.bernoulli.p: _in_the_place_of_self["bernoulli"],
    _aten.bernoulli.Tensor: _in_the_place_of_self["bernoulli"],
    _aten.bernoulli_.Tensor: _in_place(_in_the_place_of_self["bernoulli"]),
    _aten.bernoulli_.float: _in_place(_in_the_place_of_self["bernoulli"]),
    _aten.native_dropout.default: _dropout,
    _aten.multinomial.default: _multinomial,
    **{
        getattr(_aten, name).default: _in_the_place_of_self[name]
        for name in ("uniform", "exponential", "cauchy", "log_normal", "geometric")
    },
    **{
        getattr(_aten, f"{name}_").default: _in_place(_in_the_place_of_self[name])
        for name in ("normal", "uniform", "exponential", "cauchy", "log_normal", "geometric")
    },
}
