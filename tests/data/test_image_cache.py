"""Decoded images: kept once, mapped, found damaged, and never written into."""

import errno
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from pyro_avae.data import celeba as celeba_loader
from pyro_avae.data import image_cache, load_dataset
from pyro_avae.data.framing import frame_face


@pytest.fixture
def decodings(monkeypatch):
    """How many images each decoding was asked for, a list that grows."""
    counts = []
    decode = celeba_loader.decode

    def counted(source, names):
        counts.append(len(names))
        return decode(source, names)

    monkeypatch.setattr(celeba_loader, "decode", counted)
    return counts


def assert_same(one, other):
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(a.labels[task], b.labels[task]) for task in b.labels)


def flip(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_images_are_decoded_once_and_mapped(celeba_root, decoded, decodings, snapshot):
    first = load_dataset("celeba", root=celeba_root)
    before = snapshot(decoded)
    second = load_dataset("celeba", root=celeba_root)
    assert decodings == [24]
    assert snapshot(decoded) == before
    assert_same(first, second)
    # A numpy file as any other, and one mapping of it under both splits.
    (file,) = decoded.iterdir()
    stored = np.load(file, mmap_mode="r")
    assert np.array_equal(stored, torch.cat([second.train.images, second.test.images]))
    assert second.train.images.untyped_storage().data_ptr() == second.test.images.untyped_storage().data_ptr()


def test_writing_into_the_images_leaves_the_file_alone(celeba_root, decodings):
    data = load_dataset("celeba", root=celeba_root)
    expected = data.train.images.clone()
    data.train.images.zero_()
    assert torch.equal(load_dataset("celeba", root=celeba_root).train.images, expected)
    assert decodings == [24]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:1000],
        lambda content: bytes(len(content)),
        lambda content: flip(content, 10),  # the header
        lambda content: flip(content, len(content) // 2),  # an image
        lambda content: flip(content, -20),  # the stamp
        lambda content: flip(content, len(content) - 1),  # the checksum
    ],
)
def test_a_damaged_cache_is_made_again(celeba_root, decoded, decodings, damage):
    expected = load_dataset("celeba", root=celeba_root)
    (file,) = decoded.iterdir()
    content = file.read_bytes()
    file.unlink()  # the images above stay mapped to the old file
    file.write_bytes(damage(content))
    assert_same(load_dataset("celeba", root=celeba_root), expected)
    assert decodings == [24, 24]
    assert file.read_bytes() == content
    assert list(decoded.iterdir()) == [file]


def test_a_changed_file_a_new_split_and_another_framing_are_decoded_again(
    celeba, celeba_root, decoded, decodings, monkeypatch
):
    load_dataset("celeba", root=celeba_root)
    image = celeba_root / "celeba_half/img_align_celeba/000007.jpg"
    image.write_bytes(celeba.jpeg(celeba.face(100)))
    # The seventh image is the sixth of the training split: the fifth person is tested.
    changed = load_dataset("celeba", root=celeba_root).train.images[5]
    assert np.array_equal(changed, frame_face(Image.open(image)))
    os.utime(image, ns=(1, 1))
    load_dataset("celeba", root=celeba_root)
    celeba.write_lists(celeba_root / "celeba_half", 24, partition=[0] * 12 + [2] * 12)
    load_dataset("celeba", root=celeba_root)
    monkeypatch.setattr("pyro_avae.data.celeba_images.FRAMING", 2)
    load_dataset("celeba", root=celeba_root)
    assert decodings == [24] * 5
    assert len(list(decoded.iterdir())) == 1


def test_a_changed_zip_is_decoded_again(celeba, celeba_root, decodings):
    folder = celeba_root / "celeba_half"
    celeba.zipped(folder, prefix="")
    load_dataset("celeba", root=celeba_root)
    os.utime(folder / "img_align_celeba.zip", ns=(1, 1))
    load_dataset("celeba", root=celeba_root)
    assert decodings == [24, 24]


def test_two_sources_share_no_file(celeba, celeba_root, decoded, tmp_path):
    first = load_dataset("celeba", root=celeba_root)
    celeba.write_source(tmp_path / "other", 30)
    load_dataset("celeba", root=tmp_path / "other")
    assert len(list(decoded.iterdir())) == 2
    assert_same(load_dataset("celeba", root=celeba_root), first)


def test_without_a_place_to_write_images_are_decoded_into_memory_and_that_is_said_once(
    celeba_root, decoded, caplog, decodings
):
    expected = load_dataset("celeba", root=celeba_root)
    images = expected.train.images.clone()
    (file,) = decoded.iterdir()
    file.unlink()
    decoded.rmdir()
    decoded.write_bytes(b"a file in the folder's place")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert torch.equal(load_dataset("celeba", root=celeba_root).train.images, images)
    (record,) = caplog.records
    assert f"decoded images cannot be kept in {decoded} (" in record.getMessage()
    assert decodings == [24] * 3


def test_a_full_disk_is_no_obstacle_and_leaves_no_half_of_a_file(celeba_root, decoded, caplog, monkeypatch):
    def write(stream, stamp, shape, decode):
        stream.write(next(iter(decode())).tobytes())
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(image_cache, "_write_content", write)
        images = load_dataset("celeba", root=celeba_root).train.images
    assert "(No space left on device)" in caplog.text
    assert list(decoded.iterdir()) == []
    assert torch.equal(load_dataset("celeba", root=celeba_root).train.images, images)


def test_an_interrupted_decoding_leaves_nothing_behind(celeba_root, decoded, refused):
    (celeba_root / "celeba_half/img_align_celeba/000024.jpg").write_bytes(b"no image")
    with refused("000024.jpg"):
        load_dataset("celeba", root=celeba_root)
    assert list(decoded.iterdir()) == []
