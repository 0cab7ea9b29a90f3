"""Omniglot: the genuine drawings where they are there, made-up archives, and the matrix of the published split."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image

from pyro_avae.data import load_dataset, omniglot
from pyro_avae.data.omniglot import reduced


def png(ink):
    stream = io.BytesIO()
    Image.fromarray(np.where(ink, 0, 255).astype(np.uint8)).convert("1").save(stream, "png")
    return stream.getvalue()


def drawing(number):
    """A square whose place tells its number."""
    ink = np.zeros((105, 105), dtype=bool)
    ink[15 * (number // 7) : 15 * (number // 7) + 15, 15 * (number % 7) : 15 * (number % 7) + 15] = True
    return ink


def write_archive(path, count, *, extra=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}/", b"")
        for number in range(count):
            name = f"{path.stem}/Alphabet_({number % 3})/character{number % 2:02d}/{number:04d}_01.png"
            archive.writestr(name, png(drawing(number)))
        for name, content in extra:
            archive.writestr(name, content)


@pytest.fixture
def root(tmp_path, decoded):
    """A data root with six drawings to train on and four to test."""
    write_archive(tmp_path / "root" / "omniglot-py" / "images_background.zip", 6)
    write_archive(tmp_path / "root" / "omniglot-py" / "images_evaluation.rebuilt.zip", 4)
    return tmp_path / "root"


def test_drawings_become_pixels_with_the_ink_bright(root):
    data = load_dataset("omniglot", root=root)
    assert (len(data.train), len(data.test), data.shape, data.tasks) == (6, 4, (1, 28, 28), {})
    # 15 pixels of a drawing are 4 of the image: the squares come back, in the order of a hash.
    found = {tuple(np.argwhere(image[0].numpy())[0] // 4) for image in data.train.images}
    assert found == {(0, number) for number in range(6)}
    assert set(data.train.images.unique().tolist()) == {0, 255}
    assert data.train.images.bool().sum((1, 2, 3)).tolist() == [16] * 6


def test_the_reduction_is_that_of_the_area():
    ink = np.random.default_rng(0).random((4, 105, 105)) < 0.35
    # The share of a pixel in each column of the drawing, written out.
    edges = 3.75 * np.arange(29)
    share = np.clip(np.minimum(edges[1:, None], np.arange(1, 106)) - np.maximum(edges[:-1, None], np.arange(105)), 0, 1)
    covered = share @ ink.astype(float) @ share.T / 3.75**2
    assert np.array_equal(reduced(ink)[:, 0] == 255, covered > 1 / 3 - 1e-9)
    assert 0.2 < (reduced(ink) == 255).mean() < 0.9


def test_order_and_images_are_the_same_again_and_kept(root, decoded, monkeypatch):
    first = load_dataset("omniglot", root=root)
    monkeypatch.setattr(omniglot, "_decode", lambda *args: pytest.fail("decoded again"))
    again = load_dataset("omniglot", root=root)
    assert torch.equal(first.train.images, again.train.images)
    assert len(list(decoded.iterdir())) == 2


def test_the_archive_is_read_again_when_it_changes(root):
    load_dataset("omniglot", root=root)
    write_archive(root / "omniglot-py" / "images_background.zip", 5)
    assert len(load_dataset("omniglot", root=root).train) == 5


def test_other_entries_are_left_alone(root, tmp_path):
    path = root / "omniglot-py" / "images_background.zip"
    write_archive(
        path, 3, extra=[("../outside.png", b"x"), ("/etc/a_1.png", b"x"), ("images_background/list.txt", b"")]
    )
    before = sorted(tmp_path.rglob("*.png"))
    assert len(load_dataset("omniglot", root=root).train) == 3
    assert sorted(tmp_path.rglob("*.png")) == before == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no image", "UnidentifiedImageError"),
        (png(np.zeros((104, 105), dtype=bool)), "105x104 pixels"),
        (bytes(10**7), "more than 65536 bytes"),  # 10 kB in the archive
    ],
)
def test_what_is_no_drawing_is_refused_by_name(root, refused, content, reason):
    name = "images_background/A/character01/9999_01.png"
    write_archive(root / "omniglot-py" / "images_background.zip", 2, extra=[(name, content)])
    with refused(rf"images_background\.zip: expected a drawing of 105x105 in {name}, got .*{reason}.*again$"):
        load_dataset("omniglot", root=root)


def test_archives_that_are_none_or_empty_are_refused(root, refused):
    path = root / "omniglot-py" / "images_background.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with refused(r"images_background\.zip: expected a zip of drawings, got BadZipFile"):
        load_dataset("omniglot", root=root)
    write_archive(path, 0, extra=[("a.png", b"")])
    with refused(r"expected alphabet/character01/0001_01\.png and the like, 1 to 100000 of them, got 0$"):
        load_dataset("omniglot", root=root)


def test_missing_files_are_told(root, tmp_path, refused):
    (root / "omniglot-py" / "images_evaluation.rebuilt.zip").unlink()
    expected = r"^omniglot: expected chardata\.mat, images_evaluation\.zip or images_evaluation\.rebuilt\.zip in "
    with refused(expected + ".*omniglot-py, got none; they are not downloaded$"):
        load_dataset("omniglot", root=root)
    with refused(r"^omniglot: expected .* in a data root, got none"):
        load_dataset("omniglot")


def matrix(root, **content):
    scipy.io.savemat(root / "omniglot-py" / "chardata.mat", content)


def columns_first(images):
    return images.transpose(0, 2, 1).reshape(len(images), -1).T


def test_the_published_split_comes_first(root):
    grey = np.random.default_rng(0).random((300, 28, 28))
    grey[:, 0, 1], grey[:, 1, 0] = 1, 0
    matrix(root, data=columns_first(grey), testdata=columns_first(grey[:7]))
    data = load_dataset("omniglot", root=root)
    assert (len(data.train), len(data.test), data.shape, data.tasks) == (300, 7, (1, 28, 28), {})
    ink = data.train.images[:, 0] == 255
    assert bool(ink[:, 0, 1].all()) and not bool(ink[:, 1, 0].any()), "columns come first in the file"
    # Each pixel is drawn with its grey value: 4 standard errors of the mean of independent draws.
    error = np.sqrt((grey * (1 - grey)).sum()) / grey.size
    assert abs(float(ink.double().mean()) - grey.mean()) < 4 * error
    assert np.corrcoef(ink.numpy().ravel(), grey.ravel())[0, 1] > 0.5
    assert torch.equal(data.train.images, load_dataset("omniglot", root=root).train.images)


@pytest.mark.parametrize(
    "content",
    [{}, {"data": np.zeros((3, 5)), "testdata": np.zeros((784, 2))}, {"data": np.full((784, 2), 7.0), "testdata": 0}],
)
def test_other_matrices_are_refused(root, refused, content):
    matrix(root, **content)
    with refused(r"chardata\.mat: expected 28x28 grey images, got "):
        load_dataset("omniglot", root=root)


@pytest.mark.slow
def test_the_genuine_drawings(data_root, decoded):
    if not (data_root / "omniglot-py").is_dir():
        pytest.skip(f"no Omniglot in {data_root}")
    data = load_dataset("omniglot", root=data_root)
    assert data.shape == (1, 28, 28) and set(data.test.images.unique().tolist()) == {0, 255}
    if not (data_root / "omniglot-py" / "chardata.mat").is_file():
        assert (len(data.train), len(data.test)) == (19_280, 13_180)
    ink = data.train.images.bool().double().mean((1, 2, 3))
    assert 0.05 < float(ink.mean()) < 0.15
    assert float((ink == 0).double().mean()) < 0.001, "thin strokes are not lost"
