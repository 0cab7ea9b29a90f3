"""The order of the data: epochs, seeds, and independence of where a run begins."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_avae.data import load_dataset
from pyro_avae.errors import InputError
from pyro_avae.randomness import isolated, stream_seed
from pyro_avae.training.batches import EpochOrder
from pyro_avae.training.sources import as_source

CPU = torch.device("cpu")


@given(st.integers(1, 40), st.data(), st.integers(0, 2**32 - 1))
def test_every_epoch_has_every_image_once(count, data, seed):
    batch_size = data.draw(st.integers(1, count))
    order = EpochOrder(count, batch_size, seed=seed, device=CPU)
    steps = -(-3 * count // batch_size)
    stream = torch.cat([order(step) for step in range(steps)])
    assert len(stream) == steps * batch_size
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


@given(st.integers(2, 40), st.data(), st.integers(0, 100))
def test_a_step_needs_nothing_but_its_number(count, data, step):
    batch_size = data.draw(st.integers(1, count))
    walked = EpochOrder(count, batch_size, seed=3, device=CPU)
    for number in range(step):
        walked(number)
    assert torch.equal(walked(step), EpochOrder(count, batch_size, seed=3, device=CPU)(step))


def test_epochs_and_seeds_differ():
    def epoch(seed, number):
        return EpochOrder(1000, 1000, seed=seed, device=CPU)(number).tolist()

    assert len({tuple(epoch(seed, number)) for seed in range(3) for number in range(3)}) == 9


def test_streams_of_a_seed_are_distinct():
    seeds = {stream_seed(s, name, i) for s in range(50) for name in ("noise", "order", "parameters") for i in range(4)}
    assert len(seeds) == 600


def test_isolated_restores_the_callers_state():
    before = torch.get_rng_state()
    with isolated(5):
        inside = torch.rand(3)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_the_training_split_of_a_data_set_is_used():
    data = load_dataset("color-digits", limit=20)
    source = as_source(data, CPU)
    with isolated(0):
        first = source.images(source.argument(lambda step: torch.arange(20), 0))
    again, _ = data.train.batch(torch.arange(20), torch.Generator().manual_seed(0))
    assert torch.equal(first, again)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(5, 3, dtype=torch.uint8), "float tensor"),
        (torch.zeros(5), "float tensor"),
        (torch.zeros(0, 3), "float tensor"),
        (torch.tensor([[0.0, float("nan")]]), "finite"),
        ([[0.0]], "got list"),
    ],
)
def test_what_is_no_training_data(data, message):
    with pytest.raises(InputError, match=f"^data: expected .*{message}"):
        as_source(data, CPU)
