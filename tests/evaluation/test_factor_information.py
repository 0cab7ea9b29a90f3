"""Mutual informations, gap and modularity, against scikit-learn and loops over codes and factors."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import mutual_info_score

from pyro_avae.errors import InputError
from pyro_avae.evaluation.factor_information import (
    discretized,
    entropies,
    factor_information,
    information_gap,
    modularity,
)


def codes_and_factors(count=400, seed=0):
    draws = torch.Generator().manual_seed(seed)
    factors = torch.stack([torch.randint(size, (count,), generator=draws) for size in (12, 7, 3, 1)], 1)
    noise = torch.randn(count, 5, generator=draws, dtype=torch.float64)
    mixed = torch.stack([factors[:, 0], factors[:, 0] + 2 * factors[:, 1], -factors[:, 2]], 1)
    return torch.cat([mixed + noise[:, :3], 0.01 * noise[:, 3:4], torch.zeros(count, 1)], 1), factors


def naive_gap(table, factors):
    """The definition, factor by factor."""
    gaps = []
    for place, factor in enumerate(factors.T):
        entropy = mutual_info_score(factor, factor)
        if entropy > 0:
            first, second = sorted((row[place] for row in table), reverse=True)[:2]
            gaps.append((first - second) / entropy)
    return sum(gaps) / len(gaps)


def naive_modularity(table):
    """The definition, code by code."""
    scores = []
    for row in table:
        squares = [value**2 for value in row]
        most = max(squares)
        scores.append(1 - (sum(squares) - most) / (most * (len(row) - 1)) if most > 0 else 0)
    return sum(scores) / len(scores)


def test_bins_are_numpy_s_histogram():
    codes, _ = codes_and_factors()
    for column, found in zip(codes.numpy().T, discretized(codes, 5).numpy().T, strict=True):
        assert (np.digitize(column, np.histogram(column, 5)[1][:-1]) - 1 == found).all() or np.ptp(column) == 0
    assert set(discretized(codes, 5)[:, -1].tolist()) == {0}


def test_everything_against_loops_and_scikit_learn():
    codes, factors = codes_and_factors()
    bins = discretized(codes, 5)
    table = [[mutual_info_score(f, c) for f in factors.numpy().T] for c in bins.numpy().T]
    found = factor_information(bins, factors)
    np.testing.assert_allclose(found.numpy(), table, rtol=1e-12, atol=1e-14)
    entropy = entropies(factors)
    expected = [mutual_info_score(f, f) for f in factors.numpy().T]
    np.testing.assert_allclose(entropy.numpy(), expected, rtol=1e-12, atol=1e-14)
    assert information_gap(found, entropy) == pytest.approx(naive_gap(table, factors.numpy()), rel=1e-12)
    assert modularity(found) == pytest.approx(naive_modularity(found.tolist()), rel=1e-12)
    assert 0.1 < information_gap(found, entropy) < 0.9 and 0.1 < modularity(found) < 0.9


def test_what_is_constant_tells_nothing_without_rounding():
    codes, factors = codes_and_factors(count=333)
    found = factor_information(discretized(codes, 5), factors)
    assert bool((found[-1] == 0).all()) and bool((found[:, -1] == 0).all())
    assert float(entropies(factors)[-1]) == 0


def test_a_factor_that_is_held_is_left_out_of_the_gap():
    information, entropy = torch.tensor([[0.9, 0.0], [0.1, 0.0]]), torch.tensor([1.0, 0.0])
    assert information_gap(information, entropy) == pytest.approx(0.8)
    assert math.isnan(information_gap(information[:, 1:], entropy[1:]))


def test_one_code_has_its_whole_information_as_its_gap():
    assert information_gap(torch.tensor([[0.5, 0.25]]), torch.tensor([1.0, 1.0])) == pytest.approx(0.375)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match=r"codes, factors: expected shapes .* got \(3, 1\) and \(4, 1\)"):
        factor_information(torch.zeros(3, 1, dtype=torch.int64), torch.zeros(4, 1, dtype=torch.int64))
    with pytest.raises(InputError, match="factors: expected two or more"):
        modularity(torch.ones(3, 1))
