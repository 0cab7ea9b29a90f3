"""The settings that come with a data set: names that exist, and values that a user's own go before."""

import pytest

from pyro_avae.data import DATASETS
from pyro_avae.experiments.defaults import DATASET_DEFAULTS, settings_for
from pyro_avae.experiments.parts import ARCHITECTURES


@pytest.mark.parametrize("dataset", DATASET_DEFAULTS)
def test_defaults_are_for_data_sets_and_parts_that_exist(dataset):
    assert dataset in DATASETS
    settings = settings_for({"dataset": dataset})
    assert all(getattr(settings, name) == value for name, value in DATASET_DEFAULTS[dataset].items())
    assert settings.architecture in ARCHITECTURES


def test_faces_are_convolved_unless_one_says_otherwise():
    assert settings_for({"dataset": "celeba"}).architecture == "conv"
    assert settings_for({"dataset": "celeba", "architecture": "mlp", "steps": 7}).steps == 7
    assert settings_for({"dataset": "celeba", "architecture": "mlp"}).architecture == "mlp"


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_lossy_model_has_a_likelihood_of_levels_or_of_binary_pixels(dataset):
    binary = dataset in ("binarized-mnist", "omniglot", "caltech-silhouettes")
    settings = settings_for({"model": "lossy", "dataset": dataset})
    assert settings.likelihood == ("bernoulli" if binary else "logistic-mixture")
    assert settings_for({"model": "lossy", "dataset": dataset, "likelihood": "gaussian"}).likelihood == "gaussian"
