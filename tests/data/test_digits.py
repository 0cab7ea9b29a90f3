"""The embedded digits: scikit-learn's, upsampled as stated, split the same way every time."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from pyro_avae.data import load_dataset


def reference() -> np.ndarray:
    """Bilinear upsampling written as two matrix products, in 256 levels."""
    centres = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    weights = np.maximum(0, 1 - np.abs(np.clip(centres, 0, 7)[:, None] - np.arange(8)))
    return weights @ load_digits().images @ weights.T / 16 * 255


def test_images_are_the_bundled_ones_upsampled_each_once():
    data = load_dataset("color-digits")
    ours = torch.cat([data.train.images, data.test.images])[:, 0].double().numpy()
    assert (len(data.train), len(data.test)) == (1437, 360)
    expected = reference()
    nearest = [int(np.abs(expected - image).max((1, 2)).argmin()) for image in ours[::7]]
    for image, index in zip(ours[::7], nearest, strict=True):
        assert np.abs(expected[index] - image).max() <= 0.5 + 1e-5
    assert (ours.min(), ours.max()) == (0, 255)
    # Every bundled image is there exactly once: the sums over all images agree to the rounding.
    assert np.abs(ours.mean(0) - expected.mean(0)).max() < 0.5
    totals = np.sort(expected.sum((1, 2))) - np.sort(ours.sum((1, 2)))
    assert np.abs(totals).max() < 60  # 784 roundings of standard deviation 0.29: 8 in all


def test_labels_belong_to_the_images_and_the_split_is_stratified():
    data = load_dataset("color-digits")
    labels = torch.cat([data.train.labels["digit"], data.test.labels["digit"]])
    assert labels.bincount().tolist() == np.bincount(load_digits().target).tolist()
    tested = data.test.labels["digit"].bincount().double()
    assert (tested - labels.bincount() * 360 / 1797).abs().max() < 1
    train, test = (split.images.flatten(1).numpy() / 255 for split in (data.train, data.test))
    probe = LogisticRegression(C=0.1, max_iter=200).fit(train, data.train.labels["digit"].numpy())
    assert probe.score(test, data.test.labels["digit"].numpy()) > 0.93
    assert set(data.train.limit(200).labels["digit"].tolist()) == set(range(10)), "the order is not shuffled"
