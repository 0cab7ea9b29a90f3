"""Static MNIST and the Caltech silhouettes: the genuine files where they are there, and made-up ones."""

import gzip

import numpy as np
import pytest
import scipy.io
import torch

from pyro_avae.data import load_dataset
from pyro_avae.errors import InputError


def amat(path, images, *, packed=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(" ".join(map(str, row)) + " \n" for row in images.reshape(len(images), -1)).encode()
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(text)) if packed else path.write_bytes(text)


def bits(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2, (count, 28, 28), dtype=np.uint8)


@pytest.mark.parametrize("packed", [False, True])
def test_static_mnist_is_read_line_by_line(tmp_path, packed):
    for part, count in (("train", 5), ("test", 5)):
        amat(tmp_path / "MNIST_static" / f"binarized_mnist_{part}.amat", bits(count), packed=packed)
    data = load_dataset("binarized-mnist", root=tmp_path)
    assert (len(data.train), len(data.test), data.shape, data.tasks) == (5, 5, (1, 28, 28), {})
    x, _ = data.train.fixed_batch(torch.arange(5))
    assert np.array_equal(x[:, 0].numpy(), bits(5))
    assert np.array_equal(data.test.images[:, 0].numpy() // 255, bits(5)[[4, 3, 0, 1, 2]]), "in the order of a hash"


@pytest.mark.parametrize("text", [b"", b"0 1 0", b"0 1 2 " * 300, b"x"])
def test_other_text_is_refused(tmp_path, text):
    amat(tmp_path / "MNIST_static" / "binarized_mnist_test.amat", bits(2))
    (tmp_path / "MNIST_static" / "binarized_mnist_train.amat").write_bytes(text)
    with pytest.raises(InputError, match=r"binarized_mnist_train\.amat: expected lines of 784 numbers 0 or 1"):
        load_dataset("binarized-mnist", root=tmp_path)


@pytest.mark.parametrize("name", ["binarized-mnist", "caltech-silhouettes"])
def test_missing_files_are_told(tmp_path, name):
    with pytest.raises(InputError, match=f"^{name}: expected .*got neither"):
        load_dataset(name, root=tmp_path)
    with pytest.raises(InputError, match=f"^{name}: expected .*not downloaded"):
        load_dataset(name)


def silhouettes(path, **content):
    path.parent.mkdir(parents=True, exist_ok=True)
    names = np.empty((1, 101), dtype=object)
    names[0] = [f"class {number}" for number in range(101)]
    scipy.io.savemat(path, {"classnames": names, **content})


def columns_first(images):
    return (1 - images).transpose(0, 2, 1).reshape(len(images), -1)


def test_silhouettes_stand_upright_with_the_object_bright(tmp_path):
    images, labels = bits(40), np.arange(1, 41, dtype=np.uint8)
    path = tmp_path / "Caltech101Silhouettes" / "caltech101_silhouettes_28.mat"
    silhouettes(path, X=columns_first(images), Y=labels[None])
    data = load_dataset("caltech-silhouettes", root=tmp_path)
    assert data.tasks == {"class": 101} and len(data.train) + len(data.test) == 40 and len(data.test) > 3
    for split in (data.train, data.test):
        x, found = split.fixed_batch(torch.arange(len(split)))
        assert np.array_equal(x[:, 0].numpy(), images[found["class"].numpy()])
    again = load_dataset("caltech-silhouettes", root=tmp_path)
    assert torch.equal(data.test.images, again.test.images)


def test_the_published_split_comes_first(tmp_path):
    folder = tmp_path / "Caltech101Silhouettes"
    silhouettes(folder / "caltech101_silhouettes_28.mat", X=columns_first(bits(9)), Y=np.ones((1, 9), np.uint8))
    parts = {"train": 5, "val": 2, "test": 3}
    content = {f"{part}_data": columns_first(bits(count, seed=1)) for part, count in parts.items()}
    labels = {f"{part}_labels": np.ones((count, 1), np.uint8) for part, count in parts.items()}
    silhouettes(folder / "caltech101_silhouettes_28_split1.mat", **content, **labels)
    data = load_dataset("caltech-silhouettes", root=tmp_path)
    assert (len(data.train), len(data.test)) == (5, 3)


@pytest.mark.parametrize("content", [{}, {"X": np.zeros((3, 5), np.uint8), "Y": np.ones((1, 3))}, {"X": "a", "Y": "b"}])
def test_other_matrices_are_refused(tmp_path, content):
    silhouettes(tmp_path / "Caltech101Silhouettes" / "caltech101_silhouettes_28.mat", **content)
    with pytest.raises(InputError, match=r"caltech101_silhouettes_28\.mat: expected silhouettes and their classes"):
        load_dataset("caltech-silhouettes", root=tmp_path)


def test_the_genuine_files(data_root):
    static = load_dataset("binarized-mnist", root=data_root)
    assert (len(static.train), len(static.test)) == (50_000, 10_000)
    grey = load_dataset("mnist", root=data_root)
    # Ink has a probability that is the grey value: the means agree, within the error of the draws.
    assert float(static.test.images.double().mean()) == pytest.approx(float(grey.test.images.double().mean()), rel=0.01)
    shapes = load_dataset("caltech-silhouettes", root=data_root)
    assert len(shapes.train) + len(shapes.test) == 8671 and 2000 < len(shapes.test) < 2300
    assert set(shapes.test.images.unique().tolist()) == {0, 255}
    # Both files hold one class after the other; the first images are to be of all.
    for split in (shapes.train, shapes.test):
        assert len(split.labels["class"][:200].unique()) > 40
    # The first 980 of the file are zeros, with 0.17 of ink; the standard error of 980 images is 0.0014.
    first, every = (images.double().mean() / 255 for images in (static.test.images[:980], static.test.images))
    assert abs(float(first - every)) < 5 * 0.0014
    corners = shapes.train.images[:, 0, 0, 0]
    assert float((corners == 0).double().mean()) > 0.8, "the object is bright, what is around it is not"
