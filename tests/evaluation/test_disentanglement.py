"""Local and global disentanglement of representations that are known: exact, mixed, constant, folded, local only."""

import pytest
import torch
from torch import nn

from pyro_avae.data import THREE_DOTS
from pyro_avae.errors import InputError
from pyro_avae.evaluation import disentanglement
from pyro_avae.evaluation.factor_information import (
    discretized,
    entropies,
    factor_information,
    information_gap,
    modularity,
)
from pyro_avae.evaluation.factors import neighbours
from pyro_avae.guides import AmortizedGuide, MLPEncoder

F64 = torch.float64


class Factors:
    """A generator whose images are the factors."""

    def __init__(self, *num_values):
        self.num_values = num_values

    def render(self, factors):
        return factors.to(F64)


class Code(nn.Module):
    """A guide whose mean is a function of the image."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def encode(self, x):
        found = self.function(x)
        return found, torch.full_like(found, torch.nan)  # nothing but the mean may be looked at


def measured(function, *num_values, **options):
    return disentanglement(Code(function), Factors(*num_values), clusters=3, **options)


def local(found, measure, rho):
    return found["local"][str(rho)][measure]["mean"]


@pytest.mark.parametrize("rho", [0.1, 0.3, 1.0])
def test_the_factors_themselves_are_disentangled(rho):
    # Five bins of ten values know log 5 of log 10 nats each: one bin a value shows the whole.
    found = measured(lambda x: x, *[10] * 5, rhos=[rho], bins=10, samples=4000)
    assert 0.9 < local(found, "mig", rho) <= 1 and 0.9 < local(found, "modularity", rho) <= 1


def test_a_code_twice_has_no_gap_and_is_modular_all_the_same():
    found = measured(lambda x: torch.cat([x, x], 1), *[10] * 5, rhos=[1.0], bins=10, samples=4000)
    assert local(found, "mig", 1.0) == pytest.approx(0, abs=1e-12) and local(found, "modularity", 1.0) > 0.9


def test_a_code_that_is_constant_scores_nothing():
    found = measured(torch.zeros_like, *[10] * 5, rhos=[0.2, 1.0], samples=500)
    for rho in (0.2, 1.0):
        assert local(found, "mig", rho) == 0 and local(found, "modularity", rho) == 0


def test_folded_factors_are_better_seen_from_near():
    found = measured(lambda x: x % 6, *[40] * 10, rhos=[0.1, 1.0], bins=6)
    assert 0.4 < local(found, "mig", 1.0) < 0.6
    assert 0.7 < local(found, "mig", 0.1) < 0.9


def test_a_code_may_be_modular_from_near_alone():
    found = disentanglement(
        Code(lambda x: x[:, 2:] + 1000.0 * (x[:, :1] + x[:, 1:2] >= 40)),
        Factors(40, 40, 40),
        rhos=[0.1, 1.0],
        samples=5000,
        clusters=12,
    )
    # In the whole it knows as much of the first factor as of the second: 1/2. Near, two centroids in three are on one
    # side of the line, where it knows of the third alone.
    assert local(found, "modularity", 1.0) == pytest.approx(0.5, abs=0.05)
    assert local(found, "modularity", 0.1) > 0.7


def test_size_one_is_the_whole():
    found = measured(lambda x: x + x.roll(1, 1) % 5, *[10, 12, 30], rhos=[0.5, 1.0], samples=300)
    assert found["local"]["1.0"] == found["global"] != found["local"]["0.5"]


def test_factors_of_few_values_are_held_near_and_vary_in_the_whole():
    found = measured(lambda x: x[:, 2:], 20, 20, 3, rhos=[1.0], samples=3000)
    assert local(found, "mig", 1.0) == 0 and local(found, "modularity", 1.0) == 0
    assert found["global"]["mig"]["mean"] == pytest.approx(1 / 3, abs=0.01)


def test_it_is_the_definition_on_the_drawn_factors():
    seen = []
    found = disentanglement(
        Code(lambda x: seen.append(x) or (x @ torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=F64))),
        Factors(30, 20),
        rhos=[0.2],
        clusters=2,
        samples=500,
        batch_size=200,
    )
    each = []
    for cluster in (torch.cat(seen[:3]), torch.cat(seen[3:6])):
        factors = cluster.long()
        table = factor_information(discretized(cluster @ torch.tensor([[1.0, 0.3], [0.0, 1.0]], dtype=F64), 5), factors)
        each.append((information_gap(table, entropies(factors)), modularity(table)))
    for place, name in enumerate(("mig", "modularity")):
        one, other = each[0][place], each[1][place]
        assert found["local"]["0.2"][name]["mean"] == pytest.approx((one + other) / 2, rel=1e-12)
        assert found["local"]["0.2"][name]["standard_error"] == pytest.approx(abs(one - other) / 2, rel=1e-9)


def test_the_seed_decides_and_the_caller_s_random_numbers_stay():
    guide = AmortizedGuide(MLPEncoder((1, 64, 64), 3, hidden=[8])).train()
    options = {"rhos": [0.1], "clusters": 2, "samples": 40}
    state = torch.get_rng_state()
    one, two, other = (disentanglement(guide, THREE_DOTS, seed=seed, **options) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert one == two and one["local"] != other["local"]
    assert guide.training and all(p.requires_grad for p in guide.parameters())


def test_neighbours_are_within_reach_and_within_range():
    for seed in range(30):
        near = neighbours([40, 64, 9], 0.1, 400, generator=torch.Generator().manual_seed(seed))
        centre = neighbours([40, 64, 9], 0.0, 1, generator=torch.Generator().manual_seed(seed))[0]
        for factor, radius, values in zip((0, 1, 2), (4, 6, 0), (40, 64, 9), strict=True):
            low, high = max(0, int(centre[factor]) - radius), min(values - 1, int(centre[factor]) + radius)
            # 400 draws miss one of 13 values once in 10^13.
            assert sorted(set(near[:, factor].tolist())) == list(range(low, high + 1))


def test_a_whole_share_is_not_lost_to_rounding():
    near = neighbours([100], 0.29, 20_000, generator=torch.Generator().manual_seed(1))
    centre = int(neighbours([100], 0.0, 1, generator=torch.Generator().manual_seed(1))[0, 0])
    assert int(near.max()) == min(99, centre + 29) and int(near.min()) == max(0, centre - 29)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clusters": 0}, "clusters: expected at least 1, got 0"),
        ({"samples": 0}, "samples: expected at least 1, got 0"),
        ({"bins": 0}, "bins: expected at least 1, got 0"),
        ({"rhos": [-0.1]}, "rho: expected a finite number of at least 0, got -0.1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        disentanglement(Code(lambda x: x), Factors(20, 20), **{"samples": 10, **options})


def test_a_generator_without_factors_is_refused():
    for num_values in ((), (5, 0)):
        with pytest.raises(InputError, match="num_values: expected a number of at least 1 for each factor"):
            measured(lambda x: x, *num_values, samples=10)
    with pytest.raises(InputError, match="factors: expected two or more"):
        measured(lambda x: x, 20, samples=10)
