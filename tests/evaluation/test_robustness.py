"""Accuracy over a split: plain, balanced, and on images made against another classifier."""

import pytest
import torch
from torch import Tensor, nn

from pyro_avae.data import Split
from pyro_avae.evaluation import Classifier, pgd, robust_accuracy
from pyro_avae.evaluation.robustness import Standing, pgd_with, standing, transfer_with


class Pixels(nn.Module):
    """A guide whose posterior mean is the image."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = x.flatten(1)
        return z, torch.ones_like(z)


class Linear(nn.Module):
    """Two logits ±(w'(x - 1/2) + b)."""

    def __init__(self, weight: list[float], bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(weight)), bias

    def forward(self, z: Tensor) -> Tensor:
        margin = (z - 0.5) @ self.weight + self.bias
        return torch.stack([margin, -margin], -1)


def classifier(*weight: float, bias: float = 0.0) -> Classifier:
    return Classifier(Pixels(), Linear(list(weight), bias))


def grey(count: int, *, label: int = 0) -> Split:
    """Images of two pixels at 0.6, which w = (1, ...) puts into class 0."""
    images = torch.full((count, 1, 1, 2), 153, dtype=torch.uint8)
    return Split(images, {"side": torch.full((count,), label)})


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_present() -> None:
    labels = torch.tensor([0, 0, 0, 0, 2, 2, 3])  # class 1 is absent
    left = Standing(labels, {0.0: torch.tensor([1, 1, 1, 0, 1, 0, 0]).bool(), 0.1: torch.zeros(7, dtype=torch.bool)})
    assert left.accuracy() == {"0.0": 4 / 7, "0.1": 0.0}
    assert left.balanced_accuracy()["0.0"] == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert left.balanced_accuracy()["0.1"] == 0.0


def test_balanced_accuracy_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, said = torch.randint(5, (200,)), torch.randint(5, (200,))
    found = Standing(labels, {0.0: labels == said}).balanced_accuracy()["0.0"]
    assert found == pytest.approx(metrics.balanced_accuracy_score(labels.numpy(), said.numpy()))


def test_every_image_is_counted_once_and_in_order() -> None:
    images = torch.arange(11, dtype=torch.uint8).reshape(11, 1, 1, 1).expand(11, 1, 1, 2) * 20
    split = Split(images.contiguous(), {"side": torch.zeros(11, dtype=torch.long)})
    calls: list[tuple[int, int]] = []
    left = standing(
        classifier(1.0, 0.0),
        split,
        "side",
        [0.0, 0.1],
        pgd_with(steps=3, restarts=1),
        batch_size=4,
        limit=9,
        progress=lambda *call: calls.append(call),
    )
    pixel = torch.arange(9) * 20 / 255
    assert left.correct[0.0].tolist() == (pixel > 0.5).tolist()
    assert left.correct[0.1].tolist() == (pixel - 0.1 > 0.5).tolist()
    assert left.labels.tolist() == [0] * 9
    assert calls == [(4, 18), (8, 18), (9, 18), (13, 18), (17, 18), (18, 18)]


def test_robust_accuracy_is_the_share() -> None:
    attack = pgd_with(steps=3, restarts=1)
    assert robust_accuracy(classifier(1.0, 0.0), grey(5), "side", [0.0, 0.2], attack) == {"0.0": 1.0, "0.2": 0.0}


def test_transfer_breaks_a_classifier_that_agrees_and_spares_one_that_does_not() -> None:
    source, split = classifier(1.0, 1.0), grey(6)
    # The source's images are x - eps in both pixels: 0.6 - 0.3 = 0.3.
    same, opposite, blind = classifier(1.0, 0.5), classifier(1.0, -2.0, bias=0.2), classifier(0.0, 0.0, bias=1.0)
    attack = transfer_with(source, steps=5)
    accuracies = [
        robust_accuracy(target, split, "side", [0.0, 0.3], attack)["0.3"] for target in (same, opposite, blind)
    ]
    assert accuracies == [0.0, 1.0, 1.0]
    assert robust_accuracy(opposite, split, "side", [0.3], pgd_with(steps=5, restarts=1)) == {"0.3": 0.0}


def test_transfer_goes_on_after_the_source_has_fallen() -> None:
    # The corner (0.3, 0.9), a start of every fourth image, has fallen for the source; the target needs both at 0.3.
    source, target = classifier(3.0, 1.0), classifier(1.0, 1.0, bias=0.39)
    x, labels = grey(40).fixed_batch(torch.arange(40))
    made = transfer_with(source, steps=20)(target, x, labels["side"], 0.3, 0)
    torch.testing.assert_close(made.adversarial, torch.full_like(x, 0.3))
    assert not bool(made.correct.any())
    halted = pgd(source, x, labels["side"], 0.3, steps=20, restarts=1, generator=torch.Generator().manual_seed(0))
    assert not bool(halted.correct.any())
    assert bool((target.predict(halted.adversarial) == 0).any()), "the start is not enough"
