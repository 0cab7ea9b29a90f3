"""Where batches come from: indices of images on the device, a thread that reads ahead, data of a user's own."""

import threading
import time

import pytest
import torch

from pyro_avae.data import Split, load_dataset
from pyro_avae.guides import AmortizedGuide, MLPEncoder
from pyro_avae.models import VAE, MLPDecoder
from pyro_avae.randomness import isolated
from pyro_avae.training import fit, sources
from pyro_avae.training.batches import EpochOrder
from pyro_avae.training.sources import Resident, Streamed, UserData, as_source

CPU = torch.device("cpu")


@pytest.fixture
def split():
    return load_dataset("color-digits", limit=40).train


def order(count=40, **options):
    return EpochOrder(count, 8, seed=1, device=CPU, **options)


def batch(source, step):
    with isolated(step):
        return source.images(source.argument(order(), step))


def test_streamed_and_resident_batches_are_equal(split):
    resident, streamed = as_source(split, CPU), Streamed(split, CPU)
    assert isinstance(resident, Resident) and len(resident) == len(streamed) == 40
    for step in (0, 1, 2, 7, 8, 3):  # in order, ahead and back
        assert torch.equal(batch(resident, step), batch(streamed, step))
    assert streamed.argument(order(), 0).dtype == torch.uint8
    streamed.close()


def test_batches_are_read_ahead_in_another_thread(split):
    read = []

    class Slow:
        device = CPU

        def __len__(self):
            return 40

        def pixels(self, indices):
            read.append(threading.current_thread().name)
            return split.pixels(indices)

        def augmented(self, pixels):
            return split.augmented(pixels)

    streamed = Streamed(Slow(), CPU)
    streamed.argument(order(), 0)
    deadline = time.monotonic() + 10
    while len(read) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(read) == 3 and all(name.startswith("pyro_avae-batches") for name in read)
    streamed.close()


def test_an_error_of_the_reading_thread_is_told(split):
    class Broken:
        device = CPU

        def pixels(self, indices):
            raise OSError("no such disk")

    streamed = Streamed(Broken(), CPU)
    with pytest.raises(OSError, match="no such disk"):
        streamed.argument(order(), 0)
    streamed.close()


def test_what_is_too_large_for_the_device_is_streamed(monkeypatch):
    split = Split(torch.zeros(5, 1, 4, 4, dtype=torch.uint8), {})
    monkeypatch.setattr(sources, "MOST_ON_DEVICE", split.images.nbytes - 1)
    there = torch.device("meta")
    assert isinstance(as_source(split, there), Streamed)
    assert isinstance(as_source(split, CPU), Resident)  # on the host they are where they are
    monkeypatch.setattr(sources, "MOST_ON_DEVICE", split.images.nbytes)
    assert isinstance(as_source(split, there), Resident)


def test_data_of_ones_own_depend_on_seed_step_and_rank_alone(split):
    def drawn(step, **options):
        return UserData(split, device=CPU, **options).argument(order(), step)

    assert torch.equal(drawn(3, seed=1), drawn(3, seed=1))
    for other in (drawn(3, seed=2), drawn(3, seed=1, rank=1)):
        assert not torch.equal(drawn(3, seed=1), other)


def test_ranks_have_equal_parts_of_every_batch():
    whole = order(20)
    parts = [order(20, part=(rank, 4)) for rank in range(4)]
    for step in range(6):
        assert torch.equal(torch.cat([part(step) for part in parts]), whole(step))
        assert {len(part(step)) for part in parts} == {2}


def test_streamed_training_is_resident_training(split, monkeypatch):
    def trained():
        torch.manual_seed(0)
        model = VAE(MLPDecoder(2, split.shape, hidden=[4]), latent_dim=2)
        guide = AmortizedGuide(MLPEncoder(split.shape, 2, hidden=[4]))
        fit(model, guide, split, steps=12, batch_size=8, lr=0.01)
        return guide.state_dict()

    resident = trained()
    monkeypatch.setattr("pyro_avae.training.trainer.as_source", lambda data, device, **_: Streamed(data, device))
    streamed = trained()
    assert all(torch.equal(tensor, streamed[name]) for name, tensor in resident.items())
