"""Measures of detection against scikit-learn's, and their intervals against how often they should hold."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood import auroc_difference, detection, roc_curve


def sets(seed, *, ties=False, n=80, m=50):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(1.0, 1.5, size=m)
    return (a.round(), b.round()) if ties else (a, b)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_the_values_are_those_of_scikit_learn(seed, ties):
    a, b = sets(seed, ties=ties)
    truth, scores = np.repeat([0, 1], [len(a), len(b)]), np.concatenate([a, b])
    found = detection(a, b, repetitions=10)
    assert found["auroc"]["value"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert found["auprc"]["value"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    fpr, tpr, _ = sklearn_roc(truth, scores, drop_intermediate=False)
    assert found["fpr95"]["value"] == pytest.approx(fpr[tpr >= 0.95][0], abs=1e-12)
    assert found["base_rate"] == len(b) / len(scores)
    ours = roc_curve(a, b)
    np.testing.assert_allclose(ours[0], fpr, atol=1e-12)
    np.testing.assert_allclose(ours[1], tpr, atol=1e-12)


def test_exactly_95_percent_is_enough():
    """19 of 20 strange images lie above every familiar one, the last below: no familiar image need be flagged."""
    found = detection([1.0, 2.0], [0.0, *range(3, 22)], repetitions=5)
    assert found["fpr95"]["value"] == 0.0


def test_scores_that_part_the_sets_and_scores_that_say_nothing():
    apart = detection([0.0, 1.0], [2.0, 3.0], repetitions=50)
    assert [apart[name]["value"] for name in ("auroc", "auprc", "fpr95")] == [1.0, 1.0, 0.0]
    assert apart["auroc"]["low"] == 1.0
    same = detection([1.0, 1.0], [1.0, 1.0], repetitions=50)
    assert [same[name]["value"] for name in ("auroc", "auprc", "fpr95")] == [0.5, 0.5, 1.0]


def test_the_interval_is_as_long_as_the_spread_of_the_auroc():
    """Its standard deviation over 400 data sets, to a fifth: their own error is 1/28, the rest is the bootstrap's."""
    values = [detection(*sets(seed), repetitions=1)["auroc"]["value"] for seed in range(400)]
    found = [detection(*sets(seed), repetitions=300)["auroc"] for seed in range(10)]
    lengths = np.mean([one["high"] - one["low"] for one in found])
    assert lengths / (2 * 1.96) == pytest.approx(np.std(values), rel=0.2)


def test_one_seed_gives_one_interval_whatever_the_chunks():
    a, b = sets(0)
    assert detection(a, b, seed=3) == detection(a, b, seed=3)
    assert detection(a, b, seed=3) != detection(a, b, seed=4)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([], [1.0]), {}, "inside: expected scores (N,) of at least one image, got shape (0,)"),
        (([1.0], [[1.0]]), {}, "outside: expected scores (N,) of at least one image, got shape (1, 1)"),
        (([1.0], [np.nan, np.inf, 0]), {}, "outside: expected finite scores, got 2 that are not"),
        (([1.0], [1.0]), {"confidence": 1.0}, "confidence: expected a number in (0, 1), got 1.0"),
        (([1.0], [1.0]), {"repetitions": 0}, "repetitions: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, options, message):
    with pytest.raises(InputError) as caught:
        detection(*arguments, **options)
    assert str(caught.value) == message


def test_a_paired_difference_is_that_of_the_aurocs_and_narrower_than_apart():
    rng = np.random.default_rng(3)
    inside, outside = rng.normal(size=200), rng.normal(1.0, size=150)
    noisy = inside + 0.1 * rng.normal(size=200), outside + 0.1 * rng.normal(size=150)
    found = auroc_difference(noisy, (inside, outside))
    apart = [detection(*sides)["auroc"] for sides in (noisy, (inside, outside))]
    assert found["value"] == pytest.approx(apart[0]["value"] - apart[1]["value"], abs=1e-12)
    assert found["low"] <= found["value"] <= found["high"]
    assert found["high"] - found["low"] < min(one["high"] - one["low"] for one in apart)
    same = auroc_difference((inside, outside), (inside, outside))
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0}
    with pytest.raises(InputError, match="expected scores of the same images"):
        auroc_difference((inside, outside), (inside[1:], outside))
