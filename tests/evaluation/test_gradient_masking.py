"""The check for gradient masking: it exposes a classifier on which PGD fails, and passes an honest one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pyro_avae.data import Split
from pyro_avae.evaluation import Classifier
from pyro_avae.evaluation.ball import L2, LINF
from pyro_avae.evaluation.gradient_masking import masking_check
from pyro_avae.evaluation.robustness import Standing, noise_with, one_step_with, pgd_with, standing


class Identity(nn.Module):
    """A guide whose posterior mean is a function of the image."""

    def __init__(self, feature: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.feature = feature

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.feature(x)
        return z, torch.ones_like(z)


class Threshold(nn.Module):
    """Two logits, class 1 where the feature is above 0."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([-z, z], -1)


def brightness(x: Tensor) -> Tensor:
    """Above 0 where one pixel is brighter than the other."""
    return (x[:, 0, 0, :1] - x[:, 0, 0, 1:]) * 5.0


def wrong_way(x: Tensor) -> Tensor:
    """The same value, with a gradient that points the other way."""
    z = brightness(x)
    return 2.0 * z.detach() - z


@pytest.fixture
def split() -> Split:
    """Sixty images of two pixels, one of which is 0.2 brighter; the label says which."""
    labels = torch.arange(60) % 2
    images = torch.full((60, 1, 1, 2), 102, dtype=torch.uint8)
    images[torch.arange(60), 0, 0, 1 - labels] += 51
    return Split(images, {"side": labels})


def check(feature: Callable[[Tensor], Tensor], split: Split) -> dict:
    classifier = Classifier(Identity(feature), Threshold())
    attacks = {"pgd": pgd_with(steps=20, restarts=2), "one_step": one_step_with(), "noise": noise_with()}

    def run(epsilon: float) -> dict[str, Standing]:
        return {name: standing(classifier, split, "side", [epsilon], attack) for name, attack in attacks.items()}

    return masking_check(run(0.5), {LINF: run(0.12)}, LINF, num_classes=2, is_random=False)


def test_an_honest_classifier_passes(split: Split) -> None:
    found = check(brightness, split)
    assert found["accuracy"]["pgd"] == 0.0
    assert found["accuracy"]["one_step"] == 0.0
    assert found["passed"] is found["at_or_below_chance"] is True
    assert found["stronger_than_pgd"] == []
    assert (found["norm"], found["epsilon"], found["num_images"]) == ("Linf", 0.5, 60)
    assert found["chance"] == 0.5
    assert found["standard_error"] == pytest.approx((0.25 / 60) ** 0.5)


def test_a_gradient_that_points_the_wrong_way_is_exposed(split: Split) -> None:
    found = check(wrong_way, split)
    # From a random corner PGD walks to the safe corner; from half the corners of two pixels' balls it starts fallen.
    assert found["passed"] is False
    beaten = {(entry["attack"], entry["epsilon"]) for entry in found["stronger_than_pgd"]}
    assert ("noise", 0.12) in beaten
    for entry in found["stronger_than_pgd"]:
        assert entry["accuracy"] < entry["pgd"]


def test_an_attack_that_is_stuck_at_the_largest_radius_is_exposed() -> None:
    labels = torch.arange(100) % 4
    stuck = Standing(labels, {0.5: torch.arange(100) < 40})
    found = masking_check({"pgd": stuck}, {}, LINF, num_classes=4, is_random=False)
    # 0.25 + sqrt(0.25 * 0.75 / 100) = 0.293
    assert (found["at_or_below_chance"], found["stronger_than_pgd"], found["passed"]) == (False, [], False)
    fallen = Standing(labels, {0.5: torch.arange(100) < 29})
    assert masking_check({"pgd": fallen}, {}, LINF, num_classes=4, is_random=False)["passed"] is True


def test_a_constant_classifier_masks_nothing() -> None:
    labels = (torch.arange(100) < 90).long()
    constant = Standing(labels, {0.5: labels == 1})
    found = masking_check({"pgd": constant}, {}, LINF, num_classes=2, is_random=False)
    assert found["chance"] == 0.9
    assert found["passed"] is True


def test_a_random_classifier_may_differ_by_chance() -> None:
    labels = torch.arange(100) % 2
    none = Standing(labels, {0.5: labels < 0})
    pgd, noise = (Standing(labels, {0.0: labels >= 0, 1.0: torch.arange(100) < count}) for count in (50, 47))
    for is_random, names in ((False, ["noise"]), (True, [])):
        found = masking_check(
            {"pgd": none}, {L2: {"pgd": pgd, "noise": noise}}, LINF, num_classes=2, is_random=is_random
        )
        assert [entry["attack"] for entry in found["stronger_than_pgd"]] == names
        assert (found["at_or_below_chance"], found["passed"]) == (True, is_random)
        assert all(entry["norm"] == "L2" and entry["epsilon"] == 1.0 for entry in found["stronger_than_pgd"])
