"""The probe against scikit-learn itself and against a search done by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pyro_avae.errors import InputError
from pyro_avae.evaluation import LinearProbe, fit_probe
from pyro_avae.evaluation.probe import PROBE_CS


def blobs(
    num_classes: int, *, count: int = 400, dim: int = 5, spread: float = 1.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Overlapping Gaussian blobs whose dimensions differ in scale by a factor of a hundred."""
    labels = torch.arange(count) % num_classes
    centres = torch.randn(num_classes, dim, dtype=torch.float64)
    features = centres[labels] + spread * torch.randn(count, dim, dtype=torch.float64)
    return features * torch.logspace(0, -2, dim, dtype=torch.float64) + 3.0, labels


def standardised(features: torch.Tensor) -> np.ndarray:
    x = features.numpy()
    return (x - x.mean(0)) / np.sqrt(x.var(0).mean())


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_probe_has_scikit_learns_own_probabilities(num_classes: int) -> None:
    features, labels = blobs(num_classes)
    probe = fit_probe(features, labels, num_classes)
    reference = LogisticRegression(C=probe.c, solver="lbfgs", tol=1e-10, max_iter=10_000)
    reference.fit(standardised(features), labels.numpy())
    expected = reference.predict_proba(standardised(features))
    # Two solvers of one strictly convex problem, stopped at gradients of 1e-6 and 1e-10.
    np.testing.assert_allclose(probe(features).softmax(-1).detach().numpy(), expected, atol=1e-5)
    assert probe.converged


def test_c_is_the_best_on_a_held_out_tenth() -> None:
    features, labels = blobs(4, count=300, spread=3.0)
    probe = fit_probe(features, labels, 4, seed=11)
    x, y = standardised(features), labels.numpy()
    order = np.random.default_rng(11).permutation(300)
    scores = [
        LogisticRegression(C=c, tol=1e-10, max_iter=10_000)
        .fit(x[order[30:]], y[order[30:]])
        .score(x[order[:30]], y[order[:30]])
        for c in PROBE_CS
    ]
    assert len(set(scores)) > 1, "the search must have something to choose between"
    assert probe.c == PROBE_CS[int(np.argmax(scores))]
    assert probe.held_out_accuracy == max(scores)


def test_the_strongest_regularisation_wins_a_tie() -> None:
    features = torch.cat([torch.full((50, 1), -1.0), torch.full((50, 1), 1.0)])
    probe = fit_probe(features, (features[:, 0] > 0).long(), 2)
    assert probe.held_out_accuracy == 1.0
    assert probe.c == min(PROBE_CS)


def test_one_common_scale_keeps_small_dimensions_small() -> None:
    features, labels = blobs(3)
    probe = fit_probe(features, labels, 3)
    assert probe.scale == pytest.approx(float(features.var(0, unbiased=False).mean().sqrt()), rel=1e-12)
    inflated = fit_probe(1000.0 * features, labels, 3)
    torch.testing.assert_close(inflated(1000.0 * features), probe(features), rtol=1e-6, atol=1e-6)


def test_a_collapsed_posterior_gives_the_majority() -> None:
    labels = (torch.arange(100) % 4 == 0).long()
    probe = fit_probe(torch.ones(100, 3), labels, 2)
    assert probe(torch.ones(5, 3)).argmax(-1).tolist() == [0] * 5
    # With nothing to go by, the intercepts alone give the classes' frequencies.
    torch.testing.assert_close(probe(torch.ones(1, 3)).softmax(-1), torch.tensor([[0.75, 0.25]]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("present", [[1, 3], [0, 2, 4]])
def test_a_class_without_training_images_is_never_predicted(present: list[int]) -> None:
    features, index = blobs(len(present))
    probe = fit_probe(features, torch.tensor(present)[index], 5)
    logits = probe(features)
    assert logits.shape == (400, 5)
    assert bool(torch.isfinite(logits).all())
    assert set(logits.argmax(-1).tolist()) == set(present)


def test_a_class_in_the_held_out_tenth_alone_is_learned_in_the_end() -> None:
    features, labels = blobs(2, count=100)
    only_held = int(np.random.default_rng(0).permutation(100)[0])
    features[only_held], labels[only_held] = 50.0, 2
    probe = fit_probe(features, labels, 3)
    assert int(probe(features[only_held : only_held + 1]).argmax()) == 2


def test_a_fit_that_does_not_converge_says_so() -> None:
    features = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None] * torch.ones(1, 3, dtype=torch.float64)
    # Separable, collinear and all but unregularised: the optimum lies at infinity.
    probe = fit_probe(features, (features[:, 0] > 0).long(), 2, cs=[1e30])
    assert not probe.converged
    assert probe.summary()["converged"] is False


def test_gradient_reaches_the_features_and_not_the_probe() -> None:
    features, labels = blobs(3)
    probe = fit_probe(features, labels, 3)
    features.requires_grad_()
    probe(features)[:, 1].sum().backward()
    torch.testing.assert_close(features.grad, (probe.weight[1] / probe.scale).expand_as(features))
    assert all(parameter.grad is None for parameter in probe.parameters())


def test_the_fit_repeats_and_leaves_random_states_alone() -> None:
    features, labels = blobs(3)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    one, two = fit_probe(features, labels, 3), fit_probe(features, labels, 3)
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.ones(9, 2), torch.arange(9) % 2, "at least 10 training images .* got 9"),
        (torch.ones(20, 2), torch.arange(19) % 2, "19 labels for 20 images"),
        (torch.full((20, 2), torch.nan), torch.arange(20) % 2, "not finite"),
        (torch.ones(20, 2), torch.arange(20) % 4, r"labels in 0\.\.2, got 0\.\.3"),
        (torch.ones(20, 2), torch.ones(20, dtype=torch.long), r"at least two classes .* got \[1\]"),
    ],
)
def test_unusable_input_is_named(features: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_probe(features, labels, 3)


def test_summary_is_what_was_chosen() -> None:
    probe = LinearProbe(
        torch.ones(2, 3), torch.zeros(2), torch.zeros(3), scale=2.0, c=0.1, held_out_accuracy=0.9, converged=True
    )
    assert probe.num_classes == 2
    assert {key: probe.summary()[key] for key in ("scale", "C", "held_out_accuracy", "converged")} == {
        "scale": 2.0,
        "C": 0.1,
        "held_out_accuracy": 0.9,
        "converged": True,
    }
