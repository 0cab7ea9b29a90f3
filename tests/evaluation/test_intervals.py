"""Standard errors by hand, the interquartile mean against scipy, the interval's coverage on simulated runs."""

import math

import numpy as np
import pytest
from scipy.stats import trim_mean

from pyro_avae.errors import InputError
from pyro_avae.evaluation import interquartile_interval, interquartile_mean, mean_and_standard_error


def test_mean_and_standard_error_by_hand():
    result = mean_and_standard_error([1.0, 2.0, 6.0])
    # squared deviations 4, 1, 9; s² = 14 / 2
    assert result == {"mean": 3.0, "standard_error": pytest.approx(math.sqrt(7 / 3), rel=1e-12), "n": 3}


def test_one_seed_has_no_spread():
    assert mean_and_standard_error([0.5]) == {"mean": 0.5, "standard_error": None, "n": 1}


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (5, 3), (10, 7), (4, 4)])
def test_the_interquartile_mean_is_scipys(shape):
    scores = np.random.default_rng(0).normal(size=shape)
    assert interquartile_mean(scores) == pytest.approx(trim_mean(scores, 0.25, axis=None), rel=1e-12)


def test_the_interval_resamples_runs_within_each_task():
    """Runs that agree leave nothing to resample, however far the tasks are apart."""
    scores = np.tile([0.1, 0.5, 0.6, 0.9], (6, 1))
    result = interquartile_interval(scores)
    assert result["low"] == pytest.approx(0.55) and result["high"] == pytest.approx(0.55)
    assert (result["runs"], result["tasks"]) == (6, 4)


def test_one_seed_gives_one_interval_whatever_the_chunks(monkeypatch):
    scores = np.random.default_rng(1).normal(size=(5, 3))
    first = interquartile_interval(scores, seed=4)
    assert interquartile_interval(scores, seed=4) == first
    assert interquartile_interval(scores, seed=5)["low"] != first["low"]
    monkeypatch.setattr("pyro_avae.evaluation.intervals._CHUNK_VALUES", 100)
    assert interquartile_interval(scores, seed=4) == first


def test_more_confidence_is_a_longer_interval():
    scores = np.random.default_rng(1).normal(size=(8, 2))
    short, long = (interquartile_interval(scores, confidence=level) for level in (0.5, 0.99))
    assert long["low"] < short["low"] < short["iqm"] < short["high"] < long["high"]


def test_coverage_on_normal_runs():
    """40 runs of 3 tasks around 1: the interval holds 1 in 90 % of 400 repetitions, to 4 standard errors (0.06)."""
    rng = np.random.default_rng(7)
    inside = 0
    for repetition in range(400):
        scores = rng.normal(1.0, 0.2, size=(40, 3))
        result = interquartile_interval(scores, confidence=0.9, repetitions=300, seed=repetition)
        inside += result["low"] <= 1.0 <= result["high"]
    assert inside / 400 == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / 400))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mean_and_standard_error([]), "values: expected numbers, one a seed"),
        (lambda: mean_and_standard_error([[1.0], [2.0]]), "values: expected numbers, one a seed"),
        (lambda: mean_and_standard_error([1.0, float("nan")]), "values: expected finite numbers, got 1"),
        (lambda: interquartile_mean([]), "scores: expected numbers"),
        (lambda: interquartile_interval([[1.0, 2.0]]), "at least 2 runs"),
        (lambda: interquartile_interval(np.zeros((2, 2, 2))), r"expected \(runs, tasks\)"),
        (lambda: interquartile_interval([1.0, 2.0], confidence=1.0), "confidence: expected a number in"),
        (lambda: interquartile_interval([1.0, 2.0], repetitions=0), "repetitions: expected at least 1"),
    ],
)
def test_what_says_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
