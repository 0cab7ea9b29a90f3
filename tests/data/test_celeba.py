"""CelebA in made-up faces: layouts, labels, splits and limits; and what there is of the genuine data."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_avae.data import load_dataset
from pyro_avae.data.celeba_images import find_image_source
from pyro_avae.data.framing import frame_face
from pyro_avae.data.identity_split import split_by_identity


def assert_same(one, other):
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(a.labels[task], b.labels[task]) for task in b.labels)


def test_images_and_labels_are_those_of_the_files(celeba, celeba_root, decoded, snapshot):
    before = snapshot(celeba_root)
    data = load_dataset("celeba", root=celeba_root)
    assert snapshot(celeba_root) == before
    assert (data.name, data.shape, tuple(data.tasks)) == ("celeba", (3, 64, 64), celeba.TASKS)
    assert set(data.class_names.values()) == {("no", "yes")}
    tested = split_by_identity(np.arange(24) % 12)
    for split, rows in ((data.train, np.flatnonzero(~tested)), (data.test, np.flatnonzero(tested))):
        files = [celeba_root / "celeba_half/img_align_celeba" / celeba.names(24)[row] for row in rows]
        assert split.images.dtype == torch.uint8
        assert np.array_equal(split.images, np.stack([frame_face(Image.open(file)) for file in files]))
        for column, task in enumerate(celeba.TASKS):
            assert split.labels[task].tolist() == celeba.attributes(24)[rows, column].tolist()


def test_channels_are_red_green_blue(celeba_root):
    images = load_dataset("celeba", root=celeba_root).train.images.to(torch.float32)
    red, _, blue = images.mean((0, 2))
    # 0.9 and 0.2 of 255 in red, 0.1 and 0.8 in blue, but for JPEG's errors of a few levels away from the edge.
    for mean, left, right in ((red, 0.9, 0.2), (blue, 0.1, 0.8)):
        assert abs(mean[:28].mean() - 255 * left) < 8
        assert abs(mean[36:].mean() - 255 * right) < 8


@pytest.mark.parametrize("prefix", ["", "img_align_celeba/", "some/folder/img_align_celeba/"])
def test_a_zip_is_read_as_the_folder_is_whatever_the_path_inside(celeba, celeba_root, prefix):
    folder = load_dataset("celeba", root=celeba_root)
    celeba.zipped(celeba_root / "celeba_half", prefix=prefix)
    assert_same(load_dataset("celeba", root=celeba_root), folder)


def test_the_folder_of_the_lists_itself_is_a_root_and_line_ends_and_order_do_not_matter(celeba, celeba_root):
    expected = load_dataset("celeba", root=celeba_root)
    folder = celeba_root / "celeba_half"
    celeba.write_lists(folder, 24, end="\n")
    for file in celeba.LISTS[1:]:
        lines = (folder / file).read_text().splitlines()
        (folder / file).write_text("\n".join([*reversed(lines), "999999.jpg 0", "", ""]))
    assert_same(load_dataset("celeba", root=folder), expected)


def test_the_source_that_lists_more_images_is_read_and_of_equal_ones_the_first(celeba, celeba_root):
    celeba.write_source(celeba_root / "celeba", 3, size=celeba.NATIVE)
    assert len(load_dataset("celeba", root=celeba_root).train) > 3
    celeba.write_source(celeba_root / "more", 30, size=celeba.NATIVE)
    (celeba_root / "celeba").rename(celeba_root / "less")
    (celeba_root / "more").rename(celeba_root / "celeba")
    data = load_dataset("celeba", root=celeba_root)
    assert len(data.train) + len(data.test) == 30
    (celeba_root / "celeba").rename(celeba_root / "more")
    celeba.write_source(celeba_root / "celeba", 24, partition=[0] * 20 + [2] * 4)
    assert len(load_dataset("celeba", root=celeba_root).test) == 4


def test_the_official_partition_is_kept_and_its_validation_images_are_left_out(celeba, celeba_root):
    folder = celeba_root / "celeba_half"
    partition = [0] * 10 + [1] * 6 + [2] * 8
    celeba.write_lists(folder, 24, partition=partition)
    (folder / "img_align_celeba" / celeba.names(24)[12]).unlink()
    data = load_dataset("celeba", root=celeba_root)
    assert (len(data.train), len(data.test)) == (10, 8)
    assert data.train.labels["Smiling"].tolist() == celeba.attributes(24)[:10, 2].tolist()
    assert data.test.labels["Bald"].tolist() == celeba.attributes(24)[16:, 1].tolist()


@pytest.mark.parametrize("partition", [[0] * 24, [1] * 24, [2] * 24, [0] * 20 + [1] * 4, [1] * 20 + [2] * 4])
def test_without_both_parts_all_images_are_split_by_person(celeba, celeba_root, partition):
    celeba.write_lists(celeba_root / "celeba_half", 24, partition=partition)
    data = load_dataset("celeba", root=celeba_root)
    tested = split_by_identity(np.arange(24) % 12)
    assert (len(data.train), len(data.test)) == (int((~tested).sum()), int(tested.sum()))


@pytest.mark.parametrize("people", [(1, 2), (4, 11), (4, 1)])
def test_two_people_are_enough_and_one_is_not(celeba, celeba_root, refused, people):
    assert sorted(split_by_identity(np.array(people)).tolist()) == [False, True]
    celeba.write_lists(celeba_root / "celeba_half", 24, identities=[people[0]] * 24)
    with refused("celeba_half: identities: expected at least two people, one of them to be tested, got 1"):
        load_dataset("celeba", root=celeba_root)


@pytest.mark.parametrize("limit", [1, 3, 20, 1000])
@pytest.mark.parametrize("decoded_before", [False, True])
def test_a_limit_takes_the_first_of_each_split(celeba_root, decoded, limit, decoded_before):
    if decoded_before:
        load_dataset("celeba", root=celeba_root)
    limited = load_dataset("celeba", root=celeba_root, limit=limit)
    kept = [path.stat().st_size for path in decoded.iterdir()]
    # One file, and where nothing was decoded before, none but the images asked for are in it.
    images = 24 if decoded_before else len(limited.train) + len(limited.test)
    assert [size // (3 * 64 * 64) for size in kept] == [images]
    assert_same(limited, load_dataset("celeba", root=celeba_root).limit(limit))


@pytest.fixture
def official(celeba, celeba_root, monkeypatch):
    """A folder of 24 native faces that torchvision's CelebA accepts, once told the MD5 sums of its lists."""
    from torchvision.datasets import CelebA

    folder = celeba.write_source(celeba_root / "celeba", 24, size=celeba.NATIVE, partition=[0] * 12 + [1] * 4 + [2] * 8)
    for file, columns in (("list_bbox_celeba.txt", 4), ("list_landmarks_align_celeba.txt", 10)):
        rows = [f"{name} {' '.join(['1'] * columns)}" for name in celeba.names(24)]
        (folder / file).write_text("\n".join(["24", "header", *rows, ""]))
    sums = [
        (key, hashlib.md5((folder / file).read_bytes()).hexdigest(), file)
        for key, _, file in CelebA.file_list
        if file.endswith(".txt")
    ]
    monkeypatch.setattr(CelebA, "file_list", sums)
    return folder


def test_torchvision_opens_what_it_accepts_and_both_readers_agree(celeba, official, celeba_root, monkeypatch, decoded):
    from torchvision.datasets import CelebA

    opened = []
    getitem = CelebA.__getitem__
    monkeypatch.setattr(CelebA, "__getitem__", lambda self, index: opened.append(index) or getitem(self, index))
    data = load_dataset("celeba", root=celeba_root)
    assert sorted(opened) == [*range(12), *range(16, 24)]

    for split, name in ((data.train, "train"), (data.test, "test")):
        theirs = CelebA(celeba_root, split=name, target_type="attr")
        assert torch.equal(torch.stack(list(split.labels.values()), 1), theirs.attr)
        assert np.array_equal(split.images, np.stack([frame_face(image) for image, _ in theirs]))

    opened.clear()
    (official / "list_bbox_celeba.txt").unlink()
    (file,) = decoded.iterdir()
    file.unlink()
    assert_same(load_dataset("celeba", root=celeba_root), data)
    assert opened == []


@pytest.fixture
def genuine(data_root):
    if not (data_root / "celeba_half").is_dir():
        pytest.skip(f"no real data: {data_root}/celeba_half is missing")
    return data_root


def test_genuine_faces_are_split_by_person_and_labelled_as_the_list_says(genuine):
    data = load_dataset("celeba", root=genuine, limit=200)
    assert (len(data.train), len(data.test), len(data.tasks)) == (200, 200, 40)
    assert data.shape == (3, 64, 64)
    # Shares among all 10,000: 0.48 smile, 0.023 are bald; of 200, five standard errors of a proportion.
    smiling, bald = (data.train.labels[task].float().mean() for task in ("Smiling", "Bald"))
    assert abs(smiling - 0.48) < 0.18
    assert bald < 0.08
    # Faces are lighter than black, darker than white, and redder than blue.
    red, _, blue = data.train.images.float().mean((0, 2, 3))
    assert 60 < blue < red < 200


def test_genuine_native_and_half_size_images_are_framed_alike(celeba, genuine):
    if not (genuine / "celeba" / "img_align_celeba").is_dir():
        pytest.skip(f"no real data: {genuine}/celeba/img_align_celeba is missing")
    frames = []
    for folder in ("celeba", "celeba_half"):
        with find_image_source(genuine / folder).reader() as read:
            frames.append(np.stack([read(name) for name in celeba.names(32)]).astype(float))
    native, half = frames
    # The half-size files went through JPEG twice: 3 to 4 levels. A shift by one row of 64 is 5 at least, 9.6 mostly.
    assert np.abs(native - half).mean((1, 2, 3)).max() < 5
    assert np.abs(native[:, :, 1:] - half[:, :, :-1]).mean() > 2 * np.abs(native - half).mean()
