"""Every example in a docstring runs and shows what it says."""

import doctest
import importlib
import pkgutil

import pytest
import torch

PACKAGES = ["pyro_avae", "pyro_avae.models", "pyro_avae.guides", "pyro_avae.experiments"]


def modules():
    """Every module of the four packages; in a checkout the last three lie elsewhere than the first."""
    found = set(PACKAGES)
    for package in map(importlib.import_module, PACKAGES):
        found |= {info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")}
    return sorted(found)


def test_the_walk_finds_all_packages():
    assert {"pyro_avae.elbo", "pyro_avae.models.vae", "pyro_avae.guides.avae"} <= set(modules())


@pytest.mark.parametrize("name", modules())
def test_examples(name):
    module = importlib.import_module(name)
    torch.manual_seed(0)
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, _ = doctest.testmod(module, optionflags=flags, extraglobs={"torch": torch})
    assert failed == 0
