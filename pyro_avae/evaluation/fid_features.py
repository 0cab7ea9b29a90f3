"""Features for the Fréchet distance between sets of images: Inception's, or those of a small classifier."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.features import batches
from pyro_avae.randomness import isolated, stream_seed

if TYPE_CHECKING:
    from pyro_avae.data import ImageData

__all__ = ["FEATURES", "Features", "classifier_features", "inception_features"]

#: Width of the classifier's penultimate layer.
_DIM = 64

#: Images in a training batch of the classifier.
_BATCH = 64

_INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
_INCEPTION_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_INCEPTION_FILE}"


class Features(NamedTuple):
    """What the Fréchet distance is measured in.

    Attributes:
        network: images ``(B, C, H, W)`` in [0, 1] to features ``(B, D)``, in eval mode.
        name: what it is, as it is written beside the number.
    """

    network: nn.Module
    name: str


class _ConvNet(nn.Module):
    """Three strided convolutions and two linear layers; ``features`` stops before the last."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, _DIM),
            nn.ReLU(),
        )
        self.last = nn.Linear(_DIM, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to logits ``(B, K)``."""
        logits: Tensor = self.last(self.features(x))
        return logits


def classifier_features(
    data: "ImageData", *, task: str | None = None, num_train: int = 10_000, epochs: int = 5, seed: int = 0
) -> Features:
    """Train a small classifier on the data's own labels; its penultimate layer, 64 rectified units, is the feature.

    Adam, one cycle of steps up to 5e-3, batches of 64, the first ``num_train`` training images: about ten seconds on a
    CPU, and the same network for the same seed on one machine. The features hold what the task needs: those of a
    classifier of digits in random colours hardly see a wrong colour.

    Args:
        data: images with labels.
        task: the labels to learn; those with the most classes if None, the first of several.
        num_train: training images, at most.
        epochs: passes over them.
        seed: seed of the weights, the order and the data's own randomness.

    Raises:
        InputError: for data without labels, a task that they do not have or that has one class, or counts below 1.

    Example:
        >>> from pyro_avae.data import load_dataset
        >>> features = classifier_features(load_dataset("color-digits", limit=100), epochs=1)
        >>> features.network(torch.rand(2, 3, 28, 28)).shape
        torch.Size([2, 64])
        >>> features.name
        'classifier trained on color-digits/digit, accuracy ..., dim 64, seed 0'
    """
    task = _task(data, task)
    for name, value in (("num_train", num_train), ("epochs", epochs)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    with isolated(stream_seed(seed, "fid classifier")), torch.enable_grad():
        network = _ConvNet(data.shape[0], data.tasks[task]).to(data.train.device)
        _train(network, data, task, min(num_train, len(data.train)), epochs)
    network.eval().requires_grad_(False)
    accuracy = _accuracy(network, data, task)
    name = f"classifier trained on {data.name}/{task}, accuracy {accuracy:.3f}, dim {_DIM}, seed {seed}"
    return Features(network.features, name)


def _task(data: "ImageData", task: str | None) -> str:
    """The task to learn."""
    if not data.tasks:
        raise InputError(
            f"features 'classifier': the data set {data.name} has no labels to train a classifier on; use features"
            " 'inception', or pass Features(network, name) of your own"
        )
    chosen = max(data.tasks, key=lambda name: data.tasks[name]) if task is None else task
    if chosen not in data.tasks:
        raise InputError(f"task: expected one of {', '.join(data.tasks)}, got {chosen!r}")
    if data.tasks[chosen] < 2:
        raise InputError(f"features 'classifier': the task {chosen!r} of {data.name} has one class; nothing to learn")
    return chosen


def _train(network: nn.Module, data: "ImageData", task: str, count: int, epochs: int) -> None:
    """Fit the classifier in place."""
    generator = torch.Generator(data.train.device).manual_seed(torch.initial_seed())
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * math.ceil(count / _BATCH))
    for _ in range(epochs):
        for indices in torch.randperm(count).split(_BATCH):
            x, labels = data.train.batch(indices, generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x), labels[task]).backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def _accuracy(network: nn.Module, data: "ImageData", task: str) -> float:
    """The share of the test images that are classified right."""
    right = sum(int((network(x).argmax(-1) == y[task]).sum()) for x, y in batches(data.test, batch_size=500))
    return right / len(data.test)


class _Inception(nn.Module):
    """Inception-v3 of torch-fidelity for images in [0, 1] of one or three channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """``(B, 1 or 3, H, W)`` to ``(B, 2048)``; resized to 299 pixels inside."""
        pixels = (x * 255).round().to(torch.uint8)
        features: Tensor = self.network(pixels.expand(-1, 3, -1, -1))
        return features


def inception_features(weights: str | Path | None = None) -> Features:
    """The 2048 pooled features of Inception-v3, with the weights of the original FID, through torch-fidelity.

    Nothing is downloaded.

    Args:
        weights: torch-fidelity's file of weights; if None, where ``torch.hub`` keeps it.

    Raises:
        InputError: where torch-fidelity or the weights are missing; it says how to get them.
    """
    network = _require_fidelity()
    path = Path(torch.hub.get_dir()) / "checkpoints" / _INCEPTION_FILE if weights is None else Path(weights)
    if not path.is_file():
        raise InputError(
            f"features 'inception': no weights at {path}; download {_INCEPTION_URL} to that path, or use features"
            " 'classifier'"
        )
    inception = network(
        name="inception-v3-compat", features_list=["2048"], feature_extractor_weights_path=str(path)
    ).requires_grad_(False)
    return Features(_Inception(inception).eval(), "inception-v3 (torch-fidelity)")


def _require_fidelity() -> Any:
    """torchmetrics' Inception, which is torch-fidelity's, or an error that says how to get it."""
    try:
        import torch_fidelity  # noqa: F401
        from torchmetrics.image.fid import NoTrainInceptionV3
    except ImportError as error:
        raise InputError(
            "features 'inception': the package torch-fidelity is not installed; run `pip install torch-fidelity` or"
            " install the extra `pyro-avae[fid]`, or use features 'classifier'"
        ) from error
    return NoTrainInceptionV3


#: The features by name, each made for a data set.
FEATURES: dict[str, Callable[["ImageData"], Features]] = {
    "classifier": classifier_features,
    "inception": lambda data: inception_features(),
}
