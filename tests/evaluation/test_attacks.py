"""PGD against classifiers whose worst case is known exactly."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation import L2, LINF, Ball, Classifier, attacks, frozen, pgd
from pyro_avae.evaluation.attacks import check_epsilons, gap, step_length


def linear(weight: Tensor, bias: Tensor | float = 0.0, *, temperature: float = 1.0):
    """Two logits, ±(w'x + b) / 2."""

    def classifier(x: Tensor) -> Tensor:
        margin = (x.flatten(1) @ weight + bias) / (2.0 * temperature)
        return torch.stack([margin, -margin], -1)

    return classifier


def worst_margin(weight: Tensor, bias: Tensor | float, x: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """The exact least margin in the ball and the box: every pixel goes as far as it may against the label."""
    sign = 1.0 - 2.0 * labels.to(x)[:, None]
    worst = (x - epsilon * sign * weight.sign()).clamp(0.0, 1.0)
    return sign[:, 0] * (worst @ weight + bias)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), dim=st.integers(1, 30), epsilon=st.floats(0.0, 1.0))
def test_a_linear_classifier_falls_exactly_where_its_margin_does(seed: int, dim: int, epsilon: float) -> None:
    generator = seeded(seed)
    weight = torch.randn(dim, generator=generator, dtype=torch.float64)
    x = torch.rand(50, dim, generator=generator, dtype=torch.float64)
    bias = -0.5 * weight.sum()
    labels = (torch.rand(50, generator=generator) < 0.5).long()
    margin = worst_margin(weight, bias, x, labels, epsilon)
    assume(bool((margin.abs() > 1e-9).all()))
    # In the last steps a pixel may still be a rounding away from the corner, hence no margins at zero.
    result = pgd(linear(weight, bias), x, labels, epsilon, steps=10, restarts=1, generator=generator)
    assert torch.equal(result.correct, margin > 0)


def test_the_margin_falls_by_epsilon_times_the_l1_norm_inside_the_box() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    x = torch.full((1, 3), 0.5, dtype=torch.float64)
    margin = float(x @ weight + 1.0)
    just = margin / float(weight.abs().sum())
    for epsilon, stands in ((just - 1e-6, True), (just + 1e-6, False)):
        result = pgd(linear(weight, 1.0), x, torch.tensor([0]), epsilon, generator=seeded())
        assert result.correct.tolist() == [stands]


def test_more_classes_are_never_called_broken_without_a_proof(digit_classifier: Classifier, trained) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(100))
    with frozen(digit_classifier):
        result = pgd(digit_classifier, x, labels["digit"], 0.02, steps=10, generator=seeded())
        clean = digit_classifier(x).argmax(-1) == labels["digit"]
        attacked = digit_classifier(result.adversarial).argmax(-1) == labels["digit"]
    assert torch.equal(attacked & clean, result.correct)
    assert 0 < int(result.correct.sum()) < int(clean.sum()), "the attack must break some and leave some"
    rounding = 2 * torch.finfo(x.dtype).eps
    assert float((result.adversarial - x).abs().max()) <= 0.02 + rounding
    assert float(result.adversarial.min()) >= 0.0 and float(result.adversarial.max()) <= 1.0


def test_epsilon_zero_is_the_clean_accuracy(digit_classifier: Classifier, trained) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(100))
    result = pgd(digit_classifier, x, labels["digit"], 0.0)
    assert torch.equal(result.correct, digit_classifier(x).argmax(-1) == labels["digit"])
    assert torch.equal(result.adversarial, x)


def test_a_confident_classifier_does_not_hide_behind_its_saturated_loss() -> None:
    weight = torch.tensor([1.0, -1.0])
    x, labels = torch.tensor([[0.55, 0.45]]), torch.tensor([0])
    cold = linear(weight, temperature=1e-4)
    point = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(cold(point), labels)
    assert torch.autograd.grad(loss, point)[0].abs().sum() == 0, "cross entropy must be saturated for this test"
    assert not pgd(cold, x, labels, 0.1, generator=seeded()).correct.item()


def test_steps_have_the_sign_of_the_cross_entropys_gradient() -> None:
    logits = torch.randn(200, 6, dtype=torch.float64, generator=seeded())
    labels = torch.arange(200) % 6
    weight = torch.randn(6, 9, dtype=torch.float64, generator=seeded(1))

    def input_gradient(loss):
        x = torch.linalg.lstsq(weight, logits.T).solution.T.requires_grad_()
        return torch.autograd.grad(loss(x @ weight.T).sum(), x)[0]

    entropy = input_gradient(lambda out: nn.functional.cross_entropy(out, labels, reduction="none"))
    smooth = input_gradient(lambda out: gap(out, labels))
    assert torch.equal(entropy.sign(), smooth.sign())


@pytest.mark.parametrize("restarts", [1, 2, 3])
def test_the_worst_restart_counts(restarts: int) -> None:
    def valley(x: Tensor) -> Tensor:
        # Positive in the ball around 0.62, except beyond 0.773; the gradient leads there from above 0.6 only.
        margin = 0.03 - (x[:, 0] - 0.6) ** 2
        return torch.stack([margin, -margin], -1)

    count, missed = 4000, 0.5**restarts  # a start is one of the ball's two ends, and from the lower one it is stuck
    x, labels = torch.full((count, 1), 0.62), torch.zeros(count, dtype=torch.long)
    standing = pgd(valley, x, labels, 0.18, restarts=restarts, generator=seeded()).correct.double().mean()
    assert abs(float(standing) - missed) < 4 * (missed * (1 - missed) / count) ** 0.5


def test_the_generator_decides_and_the_global_state_is_left_alone(digit_classifier: Classifier, trained) -> None:
    x, labels = trained.data.test.fixed_batch(torch.arange(50))
    before = torch.get_rng_state()
    one, two = (pgd(digit_classifier, x, labels["digit"], 0.05, steps=2, generator=seeded(3)) for _ in range(2))
    other = pgd(digit_classifier, x, labels["digit"], 0.05, steps=2, generator=seeded(4))
    assert torch.equal(one.adversarial, two.adversarial)
    assert not torch.equal(one.adversarial, other.adversarial)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in trained.guide.parameters())


def network(dim: int, classes: int) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(dim, 32), nn.Tanh(), nn.Linear(32, classes)).double()


def attacked_without_leaving_any_behind(
    classifier: nn.Module, x: Tensor, labels: Tensor, epsilon: float, ball: Ball, steps: int
) -> tuple[Tensor, Tensor]:
    """One untargeted restart written out: every image takes every step, and where it first fell is looked up."""
    start = (classifier(x).argmax(-1) == labels).nonzero().squeeze(1)
    correct, adversarial = torch.zeros(len(x), dtype=torch.bool), x.clone()
    current, path = ball.surface(x[start], epsilon, seeded()), []
    for step in range(steps + 1):
        current = current.detach().requires_grad_()
        logits = classifier(current)
        path.append((current.detach(), logits.argmax(-1) != labels[start]))
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels[start]), current)
        move = step_length(epsilon, step, steps) * ball.direction(gradient)
        current = ball.project(current + move, x[start], epsilon)
    points, wrong = (torch.stack(parts) for parts in zip(*path, strict=True))
    first = torch.where(wrong.any(0), wrong.int().argmax(0), steps)
    adversarial[start] = points[first, torch.arange(len(start))]
    correct[start] = ~wrong.any(0)
    return correct, adversarial


@pytest.mark.parametrize(("ball", "epsilon"), [(LINF, 0.15), (L2, 0.6)])
@pytest.mark.parametrize(("share", "every"), [(0.0, 1), (0.125, 1), (0.125, 8), (2.0, 1)])
def test_leaving_fallen_images_behind_changes_no_result(
    ball: Ball, epsilon: float, share: float, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attacks, "_WORTH_COPYING", share)
    monkeypatch.setattr(attacks, "_steps_between_counts", lambda device: every)
    classifier = network(12, 4)
    x = torch.rand(300, 12, dtype=torch.float64, generator=seeded(1))
    with torch.no_grad():
        labels = classifier(x).argmax(-1)
    labels[::10] = (labels[::10] + 1) % 4  # some that are wrong from the start
    expected, where = attacked_without_leaving_any_behind(classifier, x, labels, epsilon, ball, 12)
    assert 30 < int(expected.sum()) < 240, "the attack must break some and leave some"
    found = pgd(classifier, x, labels, epsilon, ball=ball, steps=12, restarts=1, generator=seeded())
    assert torch.equal(found.correct, expected)
    torch.testing.assert_close(found.adversarial, where, rtol=0, atol=1e-9)
    several = pgd(classifier, x, labels, epsilon, ball=ball, steps=12, restarts=4, generator=seeded())
    assert not bool((several.correct & ~expected).any()), "further starts break more, and mend nothing"
    with torch.no_grad():
        right = classifier(several.adversarial).argmax(-1) == labels
    assert torch.equal(right, several.correct), "an image that fell is returned where it fell"


def test_no_gradient_of_a_parameter_is_computed() -> None:
    def refused(gradient: Tensor) -> None:
        raise AssertionError("an attack needs the gradient of the image alone")

    classifier = network(12, 4)
    for parameter in classifier.parameters():
        parameter.register_hook(refused)
    x = torch.rand(20, 12, dtype=torch.float64, generator=seeded())
    pgd(classifier, x, torch.zeros(20, dtype=torch.long), 0.1, steps=3, generator=seeded())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in classifier.parameters())


def test_on_an_accelerator_images_are_counted_now_and_then() -> None:
    counts = [attacks._steps_between_counts(torch.device(name)) for name in ("cpu", "cuda")]
    assert counts == [1, 8]


def test_the_first_step_crosses_the_ball_and_the_last_is_short() -> None:
    assert step_length(0.2, 0, 40) == pytest.approx(0.4)
    assert 0 < step_length(0.2, 39, 40) < 0.001


@pytest.mark.parametrize(
    ("epsilons", "message"),
    [
        ([], "at least one radius"),
        ([0.1, -0.1], r"in \[0, 1\] .* got -0.1"),
        ([float("nan")], "got nan"),
        ([25.5], "got 25.5"),
        ([0.1, 0.1], "each radius once"),
    ],
)
def test_impossible_radii_are_refused(epsilons: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_epsilons(epsilons)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"restarts": 0}, "restarts: expected at least 1, got 0"),
        ({"x": torch.full((1, 2), 255.0)}, r"pixels in \[0, 1\], got 255"),
    ],
)
def test_impossible_attacks_are_refused(change: dict, message: str) -> None:
    x = change.pop("x", torch.full((1, 2), 0.5))
    with pytest.raises(InputError, match=message):
        pgd(linear(torch.ones(2)), x, torch.tensor([0]), 0.1, **change)


def test_targeted_restarts_reach_a_class_that_the_nearest_one_hides() -> None:
    def classifier(x: Tensor) -> Tensor:
        # Class 1 is ahead of class 2 from 0.495 upwards, and still below class 0 where the ball ends, at 0.595; class 2
        # wins from 0.408 downwards.
        a = x[:, 0] - 0.5
        return 100.0 * torch.stack([torch.ones_like(a), 0.5 + 4.0 * a, 0.45 - 6.0 * a], -1)

    x, labels = torch.full((200, 1), 0.5), torch.zeros(200, dtype=torch.long)

    def left(epsilon: float, restarts: int) -> int:
        return int(pgd(classifier, x, labels, epsilon, restarts=restarts, generator=seeded()).correct.sum())

    assert left(0.09, 4) == 200, "no class wins in the smaller ball"
    assert 60 < left(0.095, 1) < 140, "from its upper end, where half of the images start, g leads to class 1"
    # Untargeted, an eighth would be unlucky three times; the third restart goes for class 2 from wherever it starts.
    assert left(0.095, 3) == 0
