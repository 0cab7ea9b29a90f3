"""Settings that would change nothing are refused where they are given."""

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.unused import _NEEDS, refuse_unused
from pyro_avae.runs.settings import Settings, setting_infos


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "se", "gamma": 2.0}, "--gamma: it takes --coupling pairwise to have a use; leave it out"),
        ({"method": "se", "coupling": "pairwise", "rho": 0.9}, "--rho: it takes --coupling factorised or optimal"),
        ({"method": "avae", "channels": 8}, "--channels: it takes --architecture conv"),
        ({"method": "avae", "architecture": "conv", "hidden": (8,)}, "--hidden: it takes --architecture mlp"),
        (
            {"method": "avae", "auxiliary_statistics": "running"},
            "--auxiliary-statistics: it takes --normalization batch",
        ),
        ({"method": "vae", "likelihood": "bernoulli", "obs_variance": 0.2}, "--obs-variance: it takes a Gaussian"),
        ({"method": "vae", "rho": 0.9}, "--rho: the method vae has no use for it; leave it out"),
    ],
)
def test_what_changes_nothing_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        refuse_unused(Settings(**given), given)


@pytest.mark.parametrize(
    "given",
    [
        {"method": "se", "coupling": "pairwise", "gamma": 2.0},
        {"method": "avae", "rho": 0.9},
        {
            "method": "avae",
            "architecture": "conv",
            "channels": 8,
            "normalization": "batch",
            "auxiliary_statistics": "batch",
        },
        {"method": "vae", "likelihood": "gaussian-learned", "obs_variance": 0.2, "hidden": (8,)},
        {"method": "my_module:build", "gamma": 2.0, "channels": 8},
    ],
)
def test_what_has_a_use_is_not(given):
    refuse_unused(Settings(**given), given)


def test_the_table_names_settings():
    assert set(_NEEDS) <= set(setting_infos())
    assert all(set(method.unused) <= set(setting_infos()) for method in METHODS.values())
