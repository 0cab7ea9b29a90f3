"""A user's own images: every layout, the split, and an error that names the file for everything else."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_avae.data import load_dataset


def save(path: Path, *, value: int = 0, mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> None:
    """An image whose first pixel's first channel is ``value``; the rest is noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    pixels[0, 0, 0] = value
    Image.fromarray(pixels.squeeze(-1) if bands == 1 else pixels).save(path)


def values(split) -> list[int]:
    return split.images[:, 0, 0, 0].tolist()


def load(folder: Path, **options):
    return load_dataset(f"folder:{folder}", **options)


def test_a_flat_folder_is_split_nine_to_one_in_an_order_that_is_always_the_same(tmp_path):
    for value in range(49):
        save(tmp_path / "a" / f"{value}.png", value=value)
        save(tmp_path / "b" / f"{48 - value}.png", value=48 - value)
    data, copy = load(tmp_path / "a"), load(tmp_path / "b")
    assert (data.name, data.shape, data.tasks) == (f"folder:{tmp_path}/a", (3, 4, 6), {})
    assert (len(data.train), len(data.test)) == (45, 4)
    assert sorted(values(data.train) + values(data.test)) == list(range(49))
    assert values(data.train) != sorted(values(data.train))
    for one, other in ((data.train, copy.train), (data.test, copy.test)):
        assert torch.equal(one.images, other.images)
    x, labels = data.train.batch(torch.tensor([2]), torch.Generator())
    assert torch.equal((x * 255).round().to(torch.uint8)[0], data.train.images[2])
    assert labels == {}


def test_pixels_are_those_of_the_file_as_red_green_blue_rows_columns(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for name in ("one", "two"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    assert (load(tmp_path).test.images[0].numpy() == pixels.transpose(2, 0, 1)).all()


def test_subfolders_are_classes_and_each_is_split(tmp_path):
    for value in range(60):
        save(tmp_path / ("cat" if value < 40 else "dog") / f"{value}.png", value=value)
    data = load(tmp_path)
    assert data.tasks == {"class": 2}
    assert data.class_names == {"class": ("cat", "dog")}
    assert data.test.labels["class"].bincount().tolist() == [4, 2]
    for split in (data.train, data.test):
        assert split.labels["class"].tolist() == [int(value >= 40) for value in values(split)]


@pytest.mark.parametrize("classes", [("",), ("cat", "dog")])
def test_train_and_test_folders_are_taken_as_they_are(tmp_path, classes):
    for index, name in enumerate(classes):
        for value in range(3):
            save(tmp_path / "train" / name / f"{value}.png", value=10 * index + value)
        save(tmp_path / "test" / name / "0.png", value=100 + index)
    save(tmp_path / "valid" / "0.png")
    data = load(tmp_path)
    assert sorted(values(data.train)) == [10 * index + value for index in range(len(classes)) for value in range(3)]
    assert sorted(values(data.test)) == [100 + index for index in range(len(classes))]
    assert data.tasks == ({"class": 2} if len(classes) > 1 else {})


def test_a_train_folder_alone_is_split_and_a_single_class_is_no_task(tmp_path):
    for value in range(20):
        save(tmp_path / "train" / "cat" / f"{value}.png", value=value)
    data = load(tmp_path)
    assert (len(data.train), len(data.test), data.tasks) == (18, 2, {})


def test_a_limit_takes_the_first_and_changes_neither_labels_nor_channels(tmp_path):
    for value in range(60):
        save(tmp_path / "abc"[value % 3] / f"{value}.png", value=value, mode="RGB" if value == 7 else "L")
    data, few = load(tmp_path), load(tmp_path, limit=2)
    assert few.shape == data.shape == (3, 4, 6)
    assert few.tasks == data.tasks == {"class": 3}
    for one, other in ((data.train, few.train), (data.test, few.test)):
        assert torch.equal(one.images[:2], other.images)
        assert torch.equal(one.labels["class"][:2], other.labels["class"])


def test_grey_images_stay_grey_and_others_become_rgb(tmp_path):
    for value in range(3):
        save(tmp_path / "grey" / f"{value}.png", value=value, mode="L")
    Image.new("1", (6, 4), 1).save(tmp_path / "grey" / "bits.png")
    assert load(tmp_path / "grey").shape == (1, 4, 6)
    modes = {"RGBA": (9, 8, 7, 0), "LA": (9, 0), "P": 9, "CMYK": (0, 0, 0, 0)}
    for mode, color in modes.items():
        file = tmp_path / "mixed" / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        file.parent.mkdir(exist_ok=True)
        image = Image.new(mode, (6, 4), color)
        if mode == "P":
            image.putpalette([index for level in range(256) for index in (level, 0, 0)])
            image.info["transparency"] = bytes(256)
        image.save(file)
    data = load(tmp_path / "mixed")
    pixels = torch.cat([data.train.images, data.test.images])[:, :, 0, 0].tolist()
    assert sorted(pixels) == sorted([[9, 8, 7], [9, 9, 9], [9, 0, 0], [255, 255, 255]])


def test_hidden_and_other_files_are_ignored_and_links_followed(tmp_path):
    for value in range(4):
        save(tmp_path / "images" / f"{value}.PNG", value=value)
    (tmp_path / "images" / "README.txt").write_text("not an image")
    (tmp_path / "images" / ".0.png").write_text("not an image either")
    (tmp_path / "images" / ".git").mkdir()
    (tmp_path / "images" / "4.png").symlink_to(tmp_path / "images" / "0.PNG")
    (tmp_path / "linked").symlink_to(tmp_path / "images")
    data = load(tmp_path / "linked")
    assert sorted(values(data.train) + values(data.test)) == [0, 0, 1, 2, 3]


def test_the_first_image_of_another_size_is_named(tmp_path, refused):
    for name in "abcd":
        save(tmp_path / f"{name}.png", size=(6, 5) if name in "cd" else (6, 4))
    with refused(r"c\.png: expected all images in one size, got 6x5 \(width x height\) after 6x4 .* in .*a\.png$"):
        load(tmp_path)


def truncated(path: Path) -> None:
    save(path, size=(60, 40))
    path.write_bytes(path.read_bytes()[:-500])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("no image\nat all")


def broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def circle(path: Path) -> None:
    path.symlink_to(path)


def pipe(path: Path) -> None:
    os.mkfifo(path)


def deep(path: Path) -> None:
    Image.fromarray(np.full((4, 6), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "expected an image that Pillow can read, got OSError: "),
        (empty, "got UnidentifiedImageError: "),
        (text, "got UnidentifiedImageError: "),
        (broken_link, "got a broken link or no regular file"),
        (circle, "got a broken link or no regular file"),
        (pipe, "got a broken link or no regular file"),
        (deep, "expected 8 bits per channel, got an image of Pillow's mode I"),
    ],
)
def test_a_file_that_is_no_image_is_named(tmp_path, refused, make, message):
    for value in range(3):
        save(tmp_path / f"{value}.png", size=(60, 40))
    make(tmp_path / "odd.png")
    with refused(rf"/odd\.png: .*{message}"):
        load(tmp_path)


def test_a_name_with_a_line_break_makes_no_second_line(tmp_path, refused):
    (tmp_path / "a\nb.png").write_bytes(b"")
    save(tmp_path / "c.png")
    with refused(r"a\\nb\.png': expected an image"):
        load(tmp_path)


def layout(*names: str):
    def make(root: Path) -> None:
        for name in names:
            save(root / name)

    return make


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), r"data: expected images \(\.bmp .*\) directly in this folder, got none"),
        (
            ("a.png", "cat/b.png"),
            r"data: expected images or subfolders .* got both \(a\.png beside the subfolder cat\)",
        ),
        (("cat/0.png", "dog/big/0.png"), r"data/dog: expected images .* got none"),
        (("a.png",), r"data: expected at least two images, .* got 'a\.png' alone"),
        (("train/a.png", "test/cat/a.png"), r"test/cat/a\.png: expected a class .*\(no classes\), got class 'cat'"),
        (("train/cat/a.png", "test/a.png"), r"test/a\.png: expected a class that .*train has \('cat'\), got no class"),
        (("train/a.png", "valid/a.png"), r"data: expected both train and test, .* got train with 0 images and 1 other"),
        (("test/a.png", "test/b.png"), r"got test with 0 images and 0 other"),
    ],
)
def test_a_layout_that_means_nothing_is_refused(tmp_path, refused, names, message):
    root = tmp_path / "data"
    root.mkdir()
    layout(*names)(root)
    with refused(message):
        load(root)


def test_a_folder_that_is_none_is_refused(tmp_path, refused):
    with refused(r"/nothing: expected a folder of images, got No such file or directory$"):
        load(tmp_path / "nothing")
    save(tmp_path / "a.png")
    with refused(r"/a\.png: expected a folder of images, got Not a directory$"):
        load(tmp_path / "a.png")
    with refused("no home folder"):
        load(Path("~no-such-user-here/images"))
