"""Splits: what they accept, and that a limit or a move changes all tensors together."""

import pytest
import torch

from pyro_avae.data import ImageData, Split

IMAGES = torch.arange(24, dtype=torch.uint8).reshape(4, 1, 2, 3)
LABELS = {"side": torch.tensor([0, 1, 1, 0])}


def test_a_limit_takes_the_first_images_with_their_labels():
    split = Split(IMAGES, LABELS)
    assert (len(split), split.shape) == (4, (1, 2, 3))
    few = split.limit(3)
    assert torch.equal(few.images, IMAGES[:3])
    assert few.labels["side"].tolist() == [0, 1, 1]
    assert len(split.limit(9)) == 4


def test_a_move_takes_everything_along():
    data = ImageData("toy", Split(IMAGES, LABELS), Split(IMAGES, LABELS), {"side": ("left", "right")})
    there = data.to("meta")
    assert there.train.device.type == there.test.labels["side"].device.type == "meta"
    assert there.tasks == {"side": 2}


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES.float(), {}, "images: expected uint8 .* got torch.float32"),
        (IMAGES[0], {}, r"of \(1, 2, 3\)"),
        (IMAGES[:0], {}, "N >= 1"),
        (IMAGES, {"side": torch.zeros(3, dtype=torch.int64)}, r"labels\['side'\]: expected int64 of shape \(4,\)"),
        (IMAGES, {"side": torch.zeros(4)}, "got torch.float32"),
        (IMAGES, {"side": torch.zeros(4, dtype=torch.int64, device="meta")}, "on cpu, got .* on meta"),
    ],
)
def test_tensors_that_make_no_split_are_refused(refused, images, labels, message):
    with refused(message):
        Split(images, labels)


def test_splits_of_two_shapes_make_no_data_set(refused):
    with refused(r"toy: expected .* one shape, got \(1, 2, 3\) and \(1, 3, 2\)"):
        ImageData("toy", Split(IMAGES, {}), Split(IMAGES.reshape(4, 1, 3, 2), {}), {})
