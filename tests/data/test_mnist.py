"""MNIST and Fashion-MNIST: the official bits, read in place, and errors that say what is wrong with a root."""

import gzip
import hashlib
import shutil

import numpy as np
import pytest
import torch

from pyro_avae.data import load_dataset

# The MD5 sums of the official unpacked files.
OFFICIAL = {
    "train": ("6bbc9ace898e44ae57da46a324031adb", "a25bea736e30d166cdddb491f175f624"),
    "test": ("2646ac647ad5339dbf082846283269ea", "27ae3e4e09519cfbb04c329615203637"),
}
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


def test_real_mnist_is_the_official_one_and_its_root_stays_as_it_was(data_root, snapshot, as_idx):
    before = snapshot(data_root / "MNIST")
    data = load_dataset("mnist", root=data_root)
    assert snapshot(data_root / "MNIST") == before
    assert (data.name, data.shape, data.tasks) == ("mnist", (1, 28, 28), {"digit": 10})
    for name, split in (("train", data.train), ("test", data.test)):
        labels = split.labels["digit"]
        arrays = split.images[:, 0].numpy(), labels.to(torch.uint8).numpy()
        assert tuple(hashlib.md5(as_idx(array)).hexdigest() for array in arrays) == OFFICIAL[name]
        assert labels.bincount().tolist() == COUNTS[name]


def test_real_fashion_mnist_has_its_ten_even_classes(data_root):
    data = load_dataset("fashion-mnist", root=data_root)
    assert data.tasks == {"class": 10}
    assert data.class_names["class"][7] == "Sneaker"
    assert data.train.labels["class"].bincount().tolist() == [6000] * 10
    assert data.test.labels["class"].bincount().tolist() == [1000] * 10


def test_a_batch_is_grey_in_unit_range_and_ignores_the_generator(data_root):
    split = load_dataset("mnist", root=str(data_root), limit=100).test
    indices = torch.tensor([3, 99, 3])
    x, labels = split.batch(indices, torch.Generator())
    assert x.dtype == torch.float32
    assert (x.min(), x.max()) == (0, 1)
    assert torch.equal((x * 255).round().to(torch.uint8), split.images[indices])
    assert torch.equal(labels["digit"], split.labels["digit"][indices])
    assert torch.equal(split.fixed_batch(indices)[0], x)


def test_a_read_only_root_is_read_and_left_alone(tiny_root, snapshot):
    folders = [path for path in [tiny_root, *tiny_root.rglob("*")] if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    before = snapshot(tiny_root)
    try:
        data = load_dataset("color-mnist", root=tiny_root)
        assert snapshot(tiny_root) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (len(data.train), len(data.test)) == (20, 10)


def test_missing_files_are_named_with_the_place_and_the_way_out(tiny_root, refused):
    (tiny_root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    with refused(r"^mnist: .*root/MNIST/raw, got no t10k-labels-idx1-ubyte; .*color-digits, which needs no download$"):
        load_dataset("mnist", root=tiny_root)
    with refused(r"^fashion-mnist: .*root/FashionMNIST/raw, got no train-images-idx3-ubyte, train-labels"):
        load_dataset("color-fashion-mnist", root=tiny_root)
    with refused("nowhere/MNIST/raw"):
        load_dataset("color-mnist", root=tiny_root / "nowhere")
    with refused("train-labels-idx1-ubyte/MNIST/raw"):
        load_dataset("mnist", root=tiny_root / "MNIST/raw/train-labels-idx1-ubyte")
    assert not (tiny_root / "nowhere").exists()


@pytest.mark.parametrize(
    ("file", "array", "message"),
    [
        ("train-labels-idx1-ubyte", np.zeros(19, np.uint8), "expected 20 labels, .* train-images-idx3-ubyte, got 19"),
        ("t10k-labels-idx1-ubyte.gz", np.full(10, 10, np.uint8), r"expected labels in 0\.\.9, got 10"),
        ("t10k-images-idx3-ubyte.gz", np.zeros((10, 28, 27), np.uint8), "expected images of 28x28, got 28x27"),
        ("t10k-images-idx3-ubyte.gz", np.zeros((10, 784), np.uint8), "3 dimensions"),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tiny_root, refused, as_idx, file, array, message):
    pack = gzip.compress if file.endswith(".gz") else bytes
    (tiny_root / "MNIST/raw" / file).write_bytes(pack(as_idx(array)))
    with refused(f"MNIST/raw/{file.removesuffix('.gz')}.*: .*{message}"):
        load_dataset("mnist", root=tiny_root)


def test_a_truncated_real_file_is_refused(data_root, tmp_path, refused):
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(data_root / "MNIST" / "raw", raw, copy_function=shutil.copyfile)
    raw.chmod(0o755)
    images = raw / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-1000])
    with refused("train-images-idx3-ubyte.gz: expected an intact gzip file"):
        load_dataset("color-mnist", root=tmp_path)
