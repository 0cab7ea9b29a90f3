"""The whole state of training as named tensors, and back, exactly."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pyro_avae.coupling import NaturalRho
from pyro_avae.errors import InputError
from pyro_avae.paths import shown
from pyro_avae.runs.checkpoints import check_module, load_module
from pyro_avae.training.optimizer_state import OptimizerState

__all__ = ["TrainingState", "has_optimizer", "watched"]

_OPTIMIZER = "optimizer."
_CPU_NOISE = "random.cpu"
_DEVICE_NOISE = "random.device"


class TrainingState:
    """What has to be the same for training to go on as if nothing had happened.

    Args:
        model: its parameters and buffers.
        guide: the same.
        optimizer: its state; one group of parameters.
        device: the one whose global generator makes the noise.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        optimizer: OptimizerState,
        device: torch.device,
    ) -> None:
        self.modules = {"model": model, "guide": guide}
        self.optimizer, self.device = optimizer, device

    def module_tensors(self) -> dict[str, Tensor]:
        """The parameters and buffers, by name; references, not copies."""
        tensors = {}
        for prefix, module in self.modules.items():
            for name, tensor in module.state_dict().items():
                if not isinstance(tensor, Tensor):
                    raise InputError(f"{prefix}: {name!r} of its state is a {type(tensor).__name__}, expected a tensor")
                tensors[f"{prefix}.{name}"] = tensor
        return tensors

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name; references, not copies."""
        tensors = self.module_tensors()
        tensors.update({f"{_OPTIMIZER}{name}": value for name, value in self.optimizer.tensors().items()})
        tensors[_CPU_NOISE] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors[_DEVICE_NOISE] = torch.cuda.get_rng_state(self.device)
        return tensors

    def check_finite(self) -> None:
        """Raise ``FloatingPointError`` that names a parameter or buffer that is not finite."""
        for prefix, module in self.modules.items():
            for name, tensor in module.state_dict().items():
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise FloatingPointError(f"{prefix}.{name}: not finite, so it is not saved; try a smaller lr")

    def restore(self, tensors: Mapping[str, Tensor], *, same_device: bool) -> None:
        """Put everything back; all of it is checked before any of it is changed.

        Args:
            tensors: as :meth:`tensors` gave them.
            same_device: whether they are of this kind of device. The generators of another kind cannot be put back.

        Raises:
            InputError: they belong to another model or guide, or are not the whole state of a training.
        """
        ours = (*(f"{prefix}." for prefix in self.modules), _OPTIMIZER, _CPU_NOISE, _DEVICE_NOISE)
        for name in tensors:
            if not name.startswith(ours):
                raise InputError(f"{shown(name)}: expected parts of a training, the checkpoint has another")
        for prefix, module in self.modules.items():
            check_module(module, tensors, prefix)
        start = len(_OPTIMIZER)
        state = {name[start:]: tensor for name, tensor in tensors.items() if name.startswith(_OPTIMIZER)}
        self.optimizer.check(state)
        if same_device:
            self._check_noise(tensors)
        for prefix, module in self.modules.items():
            load_module(module, tensors, prefix)
        self.optimizer.load(state)
        if same_device:
            torch.set_rng_state(tensors[_CPU_NOISE])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors[_DEVICE_NOISE], self.device)

    def _check_noise(self, tensors: Mapping[str, Tensor]) -> None:
        """Refuse states of generators that torch would not take."""
        now = {_CPU_NOISE: torch.get_rng_state()}
        if self.device.type == "cuda":
            now[_DEVICE_NOISE] = torch.cuda.get_rng_state(self.device)
        for name, state in now.items():
            found = tensors.get(name)
            if found is None or found.shape != state.shape or found.dtype != state.dtype:
                what = "none" if found is None else f"{found.dtype} {tuple(found.shape)}"
                raise InputError(f"{name}: expected {state.dtype} {tuple(state.shape)}, the checkpoint has {what}")
        try:
            torch.Generator().set_state(tensors[_CPU_NOISE])
        except RuntimeError:
            raise InputError(f"{_CPU_NOISE}: expected the state of torch's generator, got other bytes") from None


def has_optimizer(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the state of an optimiser is among the tensors."""
    return any(name.startswith(_OPTIMIZER) for name in tensors)


def watched(modules: Iterable[nn.Module]) -> dict[str, Tensor]:
    """What training changes and is worth a curve: ``rho``, ``obs_variance``, means where they are several."""
    found = {}
    for module in modules:
        for part in module.modules():
            for name in ("rho", "obs_variance"):
                value = getattr(part, name, None)
                if not isinstance(value, Tensor) or not value.numel():
                    continue
                if value.requires_grad or isinstance(part, NaturalRho):
                    found[name] = value.detach().mean()
    return found
