"""Fixtures that every test may use: real data where it is at hand, and a clean global state."""

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pyro
import pytest
import torch
from torch import Tensor

# A machine with other work takes longer for an example than hypothesis grants.
hypothesis.settings.register_profile("suite", deadline=None)
hypothesis.settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, laid out as torchvision lays it out; the test skips where there is none."""
    root = Path(os.environ.get("PYRO_AVAE_DATA", ROOT.parent / "shared" / "data"))
    if not (root / "MNIST" / "raw").is_dir():
        pytest.skip(f"no real data: {root}/MNIST/raw is missing (set PYRO_AVAE_DATA to a torchvision data root)")
    return root


@pytest.fixture(autouse=True, scope="session")
def state_of_no_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a training remembers for its user goes into a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def clean_global_state() -> Iterator[None]:
    """Each test starts from one seed, an empty parameter store and Pyro's validation on."""
    torch.manual_seed(0)
    pyro.clear_param_store()
    with pyro.validation_enabled(True):
        yield


@pytest.fixture
def images() -> Tensor:
    """50 images (1, 4, 4) in [0, 1] with one direction of variation."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(50, 1, 1, 1, generator=generator) * torch.rand(1, 4, 4, generator=generator)).contiguous()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``cuda`` skip where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "cuda" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
