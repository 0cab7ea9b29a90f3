"""``load_dataset``: names, limits and devices."""

import pytest

from pyro_avae.data import DATASETS, load_dataset


def test_an_unknown_name_is_answered_with_the_known_ones(refused):
    coloured = "color-digits, color-mnist, color-fashion-mnist"
    binary = "binarized-mnist, caltech-silhouettes, omniglot"
    grey = "mnist, fashion-mnist, mutated-mnist, mutated-fashion-mnist"
    allowed = f"{coloured}, {grey}, {binary}, celeba, three-dots, folder:PATH"
    with refused(rf"^dataset: expected one of {allowed}, got 'celebb'$"):
        load_dataset("celebb")
    with refused("got 'a\\\\nb'"):
        load_dataset("a\nb")
    with refused("folder:PATH, got 'folder:'"):
        load_dataset("folder:")


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_below_one_is_refused(refused, limit):
    with refused(f"limit: expected a number of images of at least 1, got {limit}"):
        load_dataset("color-digits", limit=limit)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(refused, device):
    with refused(f"^device: expected a device of this machine, such as cpu or cuda, got '{device}'"):
        load_dataset("color-digits", device=device)


@pytest.mark.parametrize("name", ["color-digits", "color-mnist", "color-fashion-mnist", "mnist", "fashion-mnist"])
def test_every_data_set_loads_under_its_name_and_names_its_classes(name, data_root):
    data = load_dataset(name, root=data_root, limit=7)
    assert data.name == name
    assert (len(data.train), len(data.test)) == (7, 7)
    assert data.shape == (3 if name.startswith("color-") else 1, 28, 28)
    assert set(data.train.labels) == set(data.tasks) - {"color"}
    assert set(DATASETS) >= {name}
