"""The whole state of training as named tensors, and back, exactly."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from pyro_avae.coupling import NaturalRho
from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import check_module, load_module

__all__ = ["TrainingState", "watched"]

_CPU_NOISE = "random.cpu"
_DEVICE_NOISE = "random.device"
_AUGMENTATION = "random.augmentation"


class TrainingState:
    """What has to be the same for training to go on as if nothing had happened.

    Args:
        model: its parameters and buffers.
        guide: the same.
        optimizer: its state; one group of parameters.
        augmentation: the generator of the data's colours.
        device: the one whose global generator makes the noise.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        optimizer: torch.optim.Optimizer,
        augmentation: torch.Generator,
        device: torch.device,
    ) -> None:
        self.modules = {"model": model, "guide": guide}
        self.optimizer, self.augmentation, self.device = optimizer, augmentation, device

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name; references, not copies."""
        tensors = {}
        for prefix, module in self.modules.items():
            for name, tensor in module.state_dict().items():
                if not isinstance(tensor, Tensor):
                    raise InputError(f"{prefix}: {name!r} of its state is a {type(tensor).__name__}, expected a tensor")
                tensors[f"{prefix}.{name}"] = tensor
        for number, values in self.optimizer.state_dict()["state"].items():
            tensors.update({f"optimizer.{number}.{name}": value for name, value in values.items()})
        tensors[_CPU_NOISE] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors[_DEVICE_NOISE] = torch.cuda.get_rng_state(self.device)
        tensors[_AUGMENTATION] = self.augmentation.get_state()
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
            InputError: they belong to another model or guide.
        """
        for prefix, module in self.modules.items():
            check_module(module, tensors, prefix)
        optimizer = _optimizer_state(tensors)
        expected = range(len(self.optimizer.param_groups[0]["params"]))
        if optimizer and set(optimizer) != set(expected):
            raise InputError(f"optimizer: the checkpoint is of {len(optimizer)} parameters, expected {len(expected)}")
        for prefix, module in self.modules.items():
            load_module(module, tensors, prefix)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": groups})
        if same_device:
            torch.set_rng_state(tensors[_CPU_NOISE])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors[_DEVICE_NOISE], self.device)
            self.augmentation.set_state(tensors[_AUGMENTATION])


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


def _optimizer_state(tensors: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, number, name = key.split(".", 2)
            state.setdefault(int(number), {})[name] = tensor
    return state
