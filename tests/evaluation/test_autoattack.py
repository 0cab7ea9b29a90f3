"""AutoAttack: the library does what we say, and leaves nothing behind."""

import sys

import pytest
import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation import L2, Classifier, autoattack, frozen, pgd
from pyro_avae.evaluation.autoattack import autoattack_parts

pytest.importorskip("torchattacks", reason="the extra `attacks` is not installed")


class Linear(nn.Module):
    """Two logits ±(w'x + b) / 2 on images."""

    def __init__(self, weight: Tensor, bias: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), bias

    def forward(self, x: Tensor) -> Tensor:
        margin = 0.5 * (x.flatten(1) @ self.weight + self.bias)
        return torch.stack([margin, -margin], -1)


def test_two_classes_reach_the_exact_worst_case(capsys: pytest.CaptureFixture[str]) -> None:
    weight = torch.randn(16)
    classifier = Linear(weight, float(-0.5 * weight.sum()))
    x, labels = torch.rand(60, 1, 4, 4), torch.arange(60) % 2
    sign = 1.0 - 2.0 * labels[:, None]
    worst = (x.flatten(1) - 0.1 * sign * weight.sign()).clamp(0.0, 1.0)
    margin = sign[:, 0] * (worst @ weight + classifier.bias)
    assert float(margin.abs().min()) > 1e-3, "no image so close that a hundred steps may or may not reach it"
    result = autoattack(classifier, x, labels, 0.1, num_classes=2, queries=50)
    assert torch.equal(result.correct, margin > 0)
    assert int(result.correct.sum()) > 0
    assert capsys.readouterr().out == ""


def test_it_is_at_least_as_strong_as_pgd(digit_classifier: Classifier, trained) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(64))
    generator = torch.Generator().manual_seed(0)
    with frozen(digit_classifier):
        weak = pgd(digit_classifier, x, labels["digit"], 0.02, generator=generator).correct
    strong = autoattack(digit_classifier, x, labels["digit"], 0.02, num_classes=10, steps=30, queries=100)
    assert int(weak.sum()) > 0, "PGD must leave something to break"
    # Either may find an image that the other misses; the ensemble may miss one in sixty-four.
    assert int(strong.correct.sum()) <= int(weak.sum()) + 1
    assert float((strong.adversarial - x).abs().max()) <= 0.02 + 2 * torch.finfo(x.dtype).eps
    with torch.no_grad():
        still = digit_classifier(strong.adversarial).argmax(-1) == labels["digit"]
    assert torch.equal(still & (digit_classifier(x).argmax(-1) == labels["digit"]), strong.correct)


def test_l2_reaches_the_exact_worst_case_inside_the_box() -> None:
    weight = torch.randn(100)
    x = 0.5 + 0.05 * torch.randn(40, 1, 10, 10).clamp(-3, 3)
    classifier = Linear(weight, float(-0.5 * weight.sum()))
    labels = classifier(x).argmax(-1).detach()
    margin = (x.flatten(1) @ weight + classifier.bias).detach().abs() - 0.05 * float(weight.norm())
    clear = margin.abs() > 0.001 * float(weight.norm())  # a fiftieth of the radius
    result = autoattack(classifier, x, labels, 0.05, num_classes=2, ball=L2, queries=20)
    assert torch.equal(result.correct[clear], (margin > 0)[clear])
    assert 0 < int(result.correct.sum()) < 40
    assert float((result.adversarial - x).flatten(1).norm(dim=1).max()) <= 0.05 + 1e-6


def test_l2_images_have_to_be_large_enough_for_square() -> None:
    with pytest.raises(InputError, match=r"at least 10 x 10 pixels in L2, got 4 x 12"):
        autoattack(nn.Flatten(), torch.rand(1, 1, 4, 12), torch.tensor([0]), 0.1, num_classes=4, ball=L2)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 12])
def test_every_number_of_classes_runs(num_classes: int) -> None:
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))
    x = torch.rand(20, 3, 2, 2)
    labels = classifier(x).argmax(-1).detach()
    clean = autoattack(classifier, x, labels, 0.0, num_classes=num_classes)
    assert bool(clean.correct.all())
    assert torch.equal(clean.adversarial, x)
    broken = autoattack(classifier, x, labels, 1.0, num_classes=num_classes, steps=10, queries=20)
    predictions_differ = len(set(classifier(torch.rand(500, 3, 2, 2)).argmax(-1).tolist())) > 1
    assert not predictions_differ or int(broken.correct.sum()) < 20


def test_small_tasks_avoid_the_targeted_attacks() -> None:
    assert autoattack_parts(2) == autoattack_parts(3) == ("apgd-ce", "fab", "square")
    assert autoattack_parts(4) == ("apgd-ce", "apgd-t", "fab-t", "square")


def test_nothing_is_left_behind() -> None:
    classifier = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(), nn.Linear(8, 5))
    classifier[2].eval()
    classifier[1].weight.requires_grad_(False)
    x, labels = torch.rand(10, 3, 2, 2), torch.arange(10) % 5
    before = torch.get_rng_state()
    one, two = (autoattack(classifier, x, labels, 0.2, num_classes=5, steps=3, queries=5, seed=1) for _ in range(2))
    assert torch.equal(one.adversarial, two.adversarial)
    assert torch.equal(before, torch.get_rng_state())
    assert [part.training for part in classifier] == [True, True, False, True]
    assert [p.requires_grad for p in classifier.parameters()] == [False, True, True, True]
    assert all(parameter.grad is None for parameter in classifier.parameters())
    assert not one.adversarial.requires_grad


def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchattacks", None)
    with pytest.raises(InputError, match=r"torchattacks is not installed; run `pip install torchattacks`"):
        autoattack(nn.Flatten(), torch.rand(1, 1, 2, 2), torch.tensor([0]), 0.1, num_classes=4)


def test_only_images_are_attacked() -> None:
    with pytest.raises(InputError, match=r"shape \(B, C, H, W\), got \(1, 4\)"):
        autoattack(nn.Linear(4, 4), torch.rand(1, 4), torch.tensor([0]), 0.1, num_classes=4)


@pytest.mark.slow
def test_published_settings_beat_pgd_on_more_images(digit_classifier: Classifier, trained) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(200))
    for epsilon in (0.01, 0.02):
        generator = torch.Generator().manual_seed(0)
        with frozen(digit_classifier):
            weak = pgd(digit_classifier, x, labels["digit"], epsilon, generator=generator).correct
        strong = autoattack(digit_classifier, x, labels["digit"], epsilon, num_classes=10).correct
        assert int(strong.sum()) <= int(weak.sum()) + 1
