"""Colouring: the names are those of the pixels, x is colour times grey, and fixed colours are fixed everywhere."""

import hashlib
import subprocess
import sys

import pytest
import torch
from scipy.stats import chisquare

from pyro_avae.data import COLORS, ColoredSplit, ImageData, Split, color_data, load_dataset

# What each name means, written down apart from the table under test: which of red, green and blue are lit.
MEANING = {"red": "r", "green": "g", "yellow": "rg", "blue": "b", "magenta": "rb", "cyan": "gb", "white": "rgb"}


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load_dataset("color-digits")


def test_a_name_is_the_colour_of_the_pixels_in_the_order_red_green_blue():
    grey = torch.full((7, 1, 1, 1), 255, dtype=torch.uint8)
    split = ColoredSplit(grey, {}, colors=torch.arange(7))
    x, labels = split.fixed_batch(torch.arange(7))
    assert labels["color"].tolist() == list(range(7))
    seen = ["".join(c for c, lit in zip("rgb", pixel, strict=True) if lit) for pixel in x[:, :, 0, 0].tolist()]
    assert dict(zip(COLORS, seen, strict=True)) == MEANING


def test_a_batch_is_colour_times_grey_with_the_labels_of_its_indices(digits):
    split = digits.train
    indices = torch.tensor([5, 1400, 5, 0, 77])
    for x, labels in (split.batch(indices, torch.Generator().manual_seed(1)), split.fixed_batch(indices)):
        rgb = torch.tensor([list(COLORS.values())[k] for k in labels["color"].tolist()], dtype=torch.float32)
        grey = split.images[indices].to(torch.float32) / 255
        assert torch.equal(x, rgb[:, :, None, None] * grey)
        assert torch.equal(labels["digit"], split.labels["digit"][indices])
        assert set(labels) == set(digits.tasks)
        assert (x.dtype, labels["color"].dtype) == (torch.float32, torch.int64)
        assert (x.min(), x.max()) == (0, 1)


def test_a_generator_reproduces_its_colours_and_draws_new_ones_each_time(digits):
    indices = torch.arange(200)
    one, two = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    first, second = (digits.train.batch(indices, one)[1]["color"] for _ in range(2))
    assert torch.equal(first, digits.train.batch(indices, two)[1]["color"])
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_drawn_and_fixed_colours_are_uniform_and_independent_of_the_digit(data_root):
    data = load_dataset("color-mnist", root=data_root)
    drawn = data.train.batch(torch.arange(60_000), torch.Generator().manual_seed(0))[1]["color"]
    for split, colors in ((data.train, drawn), (data.train, data.train.colors), (data.test, data.test.colors)):
        joint = torch.bincount(split.labels["digit"] * 7 + colors, minlength=70).reshape(10, 7).double()
        # Given the digits, each of the 70 cells has a seventh of its row; a fair draw fails at one seed in 10^4.
        expected = joint.sum(1, keepdim=True).expand(10, 7) / 7
        assert chisquare(joint.flatten(), expected.flatten(), ddof=9).pvalue > 1e-4


def test_fixed_colours_do_not_change_from_call_to_call_or_with_the_limit(digits):
    indices = torch.arange(50)
    x, labels = digits.test.fixed_batch(indices)
    torch.manual_seed(123)
    again, _ = digits.test.fixed_batch(indices)
    limited = load_dataset("color-digits", limit=50)
    few, few_labels = limited.test.fixed_batch(indices)
    assert torch.equal(again, x)
    assert torch.equal(few, x)
    assert all(torch.equal(few_labels[task], labels[task]) for task in ("digit", "color"))
    assert (len(limited.train), len(limited.test)) == (50, 50)
    assert torch.equal(limited.train.colors, digits.train.colors[:50])


def test_training_and_test_colours_are_not_one_stream(digits):
    count = len(digits.test)
    agreement = (digits.train.colors[:count] == digits.test.colors).double().mean().item()
    assert abs(agreement - 1 / 7) < 4 * (1 / 7 * 6 / 7 / count) ** 0.5


PROGRAM = """
import hashlib, torch
from pyro_avae.data import load_dataset
torch.manual_seed(5); torch.rand(3)
split = load_dataset("color-digits", limit=300).test
print(hashlib.md5(split.fixed_batch(torch.arange(300))[0].numpy().tobytes()).hexdigest())
"""


def test_another_process_sees_the_same_test_set(digits):
    here = hashlib.md5(digits.test.fixed_batch(torch.arange(300))[0].numpy().tobytes()).hexdigest()
    there = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout.strip()
    assert there == here


def test_the_fixed_colours_of_mnist_are_these(data_root):
    # Published results hang on them: a release that changes them has to say so.
    data = load_dataset("color-mnist", root=data_root)
    assert data.test.colors[:12].tolist() == [2, 1, 3, 4, 5, 0, 3, 2, 6, 4, 5, 2]
    assert data.test.colors.bincount().tolist() == [1416, 1450, 1440, 1439, 1476, 1381, 1398]
    assert data.train.colors.bincount().tolist() == [8631, 8531, 8510, 8489, 8512, 8677, 8650]


@pytest.mark.cuda
def test_a_device_changes_neither_fixed_colours_nor_images(digits):
    there = load_dataset("color-digits", device="cuda")
    indices = torch.arange(len(digits.test))
    x, labels = there.test.fixed_batch(indices)
    assert x.device.type == "cuda"
    expected, expected_labels = digits.test.fixed_batch(indices)
    assert torch.equal(x.cpu(), expected)
    assert all(torch.equal(labels[task].cpu(), expected_labels[task]) for task in labels)
    drawn, _ = there.train.batch(indices.cuda(), torch.Generator("cuda").manual_seed(0))
    assert drawn.device.type == "cuda"


@pytest.mark.cuda
def test_a_generator_on_another_device_is_refused(digits, refused):
    there = digits.to("cuda")
    with refused("generator: expected a torch.Generator on cuda:0, where the images are, got one on cpu"):
        there.train.batch(torch.arange(3), torch.Generator())


@pytest.mark.parametrize(
    ("channels", "colors", "message"),
    [
        (3, torch.zeros(2, dtype=torch.int64), "expected 1 channel to colour, got 3"),
        (1, torch.tensor([0, 7]), r"colors: expected int64 of shape \(2,\) in 0\.\.6"),
        (1, torch.zeros(3, dtype=torch.int64), r"got torch.int64 of \(3,\)"),
        (1, torch.zeros(2), "got torch.float32"),
    ],
)
def test_a_split_that_cannot_be_coloured_is_refused(refused, channels, colors, message):
    with refused(message):
        ColoredSplit(torch.zeros(2, channels, 4, 4, dtype=torch.uint8), {}, colors=colors)


def test_colouring_keeps_the_labels_and_names_the_colours():
    split = Split(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), {"shape": torch.tensor([1, 0])})
    data = color_data(ImageData("toy", split, split, {"shape": ("round", "square")}))
    assert (data.name, data.tasks, data.shape) == ("color-toy", {"shape": 2, "color": 7}, (3, 4, 4))
    assert data.class_names["color"] == tuple(MEANING)
    assert data.test.labels["shape"].tolist() == [1, 0]
