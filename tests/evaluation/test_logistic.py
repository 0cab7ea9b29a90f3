"""Logistic regression against scikit-learn and against the conditions of its optimum, taken by autograd."""

import time

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression as Reference
from torch import Tensor

from pyro_avae.evaluation import logistic
from pyro_avae.evaluation.logistic import LogisticRegression


def features(classes: int, *, count: int, spread: float = 1.5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Blobs in six dimensions whose scales differ by a factor of a thousand, overlapping unless ``spread`` is small."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    centres = torch.randn(classes, 6, dtype=torch.float64, generator=generator)
    x = centres[y] + spread * torch.randn(count, 6, dtype=torch.float64, generator=generator)
    return x * torch.logspace(0, -3, 6, dtype=torch.float64), y


def probabilities(regression: LogisticRegression, x: Tensor) -> np.ndarray:
    logits = x @ regression.parameters[:, :-1].T + regression.parameters[:, -1]
    logits = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    return logits.softmax(-1).numpy()


@pytest.mark.parametrize("c", [0.001, 1.0, 1000.0])
@pytest.mark.parametrize(("classes", "count", "spread"), [(2, 300, 1.5), (3, 9000, 1.0), (5, 9000, 0.3)])
def test_probabilities_are_scikit_learns(classes: int, count: int, spread: float, c: float) -> None:
    x, y = features(classes, count=count, spread=spread)
    regression = LogisticRegression(x, y)
    assert regression.fit(c)
    reference = Reference(C=c, solver="newton-cholesky", tol=1e-10, max_iter=500).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(probabilities(regression, x), reference.predict_proba(x.numpy()), atol=2e-4)
    assert np.array_equal(regression.predict(x).numpy(), probabilities(regression, x).argmax(1))


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_the_gradient_of_the_objective_vanishes(classes: int) -> None:
    x, y = features(classes, count=6000)
    regression = LogisticRegression(x, y)
    assert regression.fit(10.0)
    w = regression.parameters.clone().requires_grad_()
    logits = x @ w[:, :-1].T + w[:, -1]
    logits = torch.cat([torch.zeros_like(logits), logits], 1) if classes == 2 else logits
    value = torch.nn.functional.cross_entropy(logits, y) + w[:, :-1].square().sum() / (2 * 10.0 * len(x))
    (gradient,) = torch.autograd.grad(value, w)
    assert float(gradient.abs().max()) < 1e-6
    if classes > 2:
        assert abs(float(regression.parameters[:, -1].sum())) < 1e-6


def test_where_a_fit_starts_makes_no_difference() -> None:
    x, y = features(4, count=2000)
    first = LogisticRegression(x, y)
    for c in (0.01, 1000.0, 1.0):
        assert first.fit(c)
    again = LogisticRegression(x, y, start=torch.full_like(first.parameters, 3.0))
    assert again.fit(1.0)
    np.testing.assert_allclose(probabilities(first, x), probabilities(again, x), atol=1e-4)


def test_an_optimum_at_infinity_is_not_called_one() -> None:
    x = torch.linspace(-1, 1, 40, dtype=torch.float64)[:, None].expand(40, 3)
    assert not LogisticRegression(x, (x[:, 0] > 0).long()).fit(1e30)
    assert LogisticRegression(x, (x[:, 0] > 0).long()).fit(1.0)


def test_features_without_information_give_the_shares_of_the_classes() -> None:
    y = torch.tensor([0, 1, 1, 2, 2, 2, 2, 2])
    regression = LogisticRegression(torch.zeros(8, 2, dtype=torch.float64), y)
    assert regression.fit(1.0)
    shares = probabilities(regression, torch.zeros(1, 2, dtype=torch.float64))
    np.testing.assert_allclose(shares, [[0.125, 0.25, 0.625]], atol=1e-5)


@pytest.mark.parametrize("c", [0.01, 10.0])
def test_a_block_for_each_class_leads_to_the_same_optimum(monkeypatch: pytest.MonkeyPatch, c: float) -> None:
    """What many classes have, whose whole Hessian would take a cube of their number to factor."""
    x, y = features(5, count=3000)
    whole = LogisticRegression(x, y)
    assert whole.fit(c)
    monkeypatch.setattr(logistic, "_MOST_IN_ONE_BLOCK", 10)
    blocks = LogisticRegression(x, y)
    assert blocks.fit(c)
    np.testing.assert_allclose(probabilities(blocks, x), probabilities(whole, x), atol=1e-4)


def test_many_classes_are_fitted_in_seconds() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(4000) % 101
    centres = torch.randn(101, 64, dtype=torch.float64, generator=generator)
    x = centres[y] + 0.8 * torch.randn(4000, 64, dtype=torch.float64, generator=generator)
    regression, began = LogisticRegression(x, y), time.process_time()
    assert regression.fit(0.01)
    assert time.process_time() - began < 60  # a factor of the whole Hessian of 6,565 parameters takes this long alone
    assert float((regression.predict(x) == y).double().mean()) > 0.9
