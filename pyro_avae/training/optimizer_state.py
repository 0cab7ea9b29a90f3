"""An optimiser's state as named tensors; of one that trains several seeds at once, one seed's part."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_avae.errors import InputError

__all__ = ["OptimizerState"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class OptimizerState:
    """What an optimiser remembers of its parameters, or of the k-th part of parameters that are stacked.

    A tensor of its state that has a parameter's shape is stacked as that is; others (Adam's count of steps) are common.
    A seed's part reads as the state of an optimiser that trained it alone.

    Args:
        optimizer: with one group of parameters.
        part: ``(k, K)``, the k-th of K stacked seeds; None where nothing is stacked.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, part: tuple[int, int] | None = None) -> None:
        self._optimizer, self._part = optimizer, part

    def tensors(self) -> dict[str, Tensor]:
        """``NUMBER.NAME``, the number being the parameter's; references, not copies."""
        return {
            f"{number}.{name}": value if self._part is None or value.shape != p.shape else value[self._part[0]]
            for number, p in enumerate(self._parameters())
            for name, value in self._optimizer.state.get(p, {}).items()
        }

    def check(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise :class:`InputError` where they are not the state of Adam on these parameters."""
        found, parameters = {name.partition(".")[0] for name in tensors}, self._parameters()
        if found and found != {str(number) for number in range(len(parameters))}:
            raise InputError(f"optimizer: the checkpoint is of {len(found)} parameters, expected {len(parameters)}")
        shapes: dict[str, tuple[int, ...]] = {}
        for number, p in enumerate(parameters):
            shape = tuple(p.shape if self._part is None else p.shape[1:])
            shapes |= {f"{number}.step": (), f"{number}.exp_avg": shape, f"{number}.exp_avg_sq": shape}
        for name in (*tensors, *(shapes if tensors else ())):
            if name not in tensors or name not in shapes:
                raise InputError(f"optimizer.{name}: expected step, exp_avg and exp_avg_sq of each parameter")
            tensor = tensors[name]
            if tuple(tensor.shape) != shapes[name] or tensor.dtype not in _DTYPES or not bool(tensor.isfinite().all()):
                raise InputError(
                    f"optimizer.{name}: expected finite numbers of shape {shapes[name]}, the checkpoint has"
                    f" {tensor.dtype} {tuple(tensor.shape)}, or some that are not finite"
                )

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put the state back, this seed's part where several are stacked."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            number, _, name = key.partition(".")
            state.setdefault(int(number), {})[name] = value
        if self._part is not None:
            place = self._part[0]
            state = {number: self._within_all(number, values, place) for number, values in state.items()}
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _within_all(self, number: int, values: Mapping[str, Tensor], place: int) -> dict[str, Tensor]:
        """The state of all seeds with this one's in its place."""
        parameter = self._parameters()[number]
        there = self._optimizer.state.get(parameter, {})
        found = {}
        for name, value in values.items():
            if value.shape != parameter.shape[1:] or (value.dim() == 0 and name == "step"):
                found[name] = value
                continue
            whole = there[name].clone() if name in there else torch.zeros_like(parameter)
            whole[place] = value
            found[name] = whole
        return found

    def _parameters(self) -> list[Tensor]:
        return self._optimizer.param_groups[0]["params"]
