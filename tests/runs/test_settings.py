"""Settings: what they refuse, and that they come back from JSON as they went."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_avae.errors import InputError
from pyro_avae.runs.settings import Settings, setting_infos

finite = st.floats(allow_nan=False, allow_infinity=False)
positive = finite.filter(lambda v: v > 0)
rho = st.one_of(st.floats(-1, 1, exclude_min=True, exclude_max=True), st.just("learned"))

settings_strategy = st.builds(
    Settings,
    method=st.sampled_from(["vae", "avae", "my_module:build"]),
    dataset=st.sampled_from(["color-mnist", "folder:/a b/ü"]),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 10**9),
    batch_size=st.integers(1, 10**6),
    lr=positive,
    rho=rho,
    latent_dim=st.integers(1, 1000),
    obs_variance=positive,
    gradient=st.sampled_from([None, "cut", "through_z"]),
    beta=positive,
    hidden=st.lists(st.integers(1, 10**6), max_size=5),
    image_shape=st.tuples(*[st.integers(1, 100)] * 3),
    limit=st.none() | st.integers(1, 10**6),
    data_root=st.none() | st.just("/data"),
)


@given(settings_strategy)
def test_json_round_trip(settings):
    text = json.dumps(settings.to_json(), allow_nan=False)
    assert Settings.from_json(json.loads(text)) == settings


def test_defaults_are_the_papers():
    settings = Settings()
    assert (settings.steps, settings.lr, settings.batch_size) == (102_000, 1e-4, 64)
    assert (settings.latent_dim, settings.obs_variance, settings.rho) == (64, 0.5, 0.975)
    assert settings.hidden == (200, 200, 200, 200)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1.0),
        ("steps", True),
        ("steps", "10"),
        pytest.param("steps", 10**5000, id="steps-of-5000-digits"),
        ("seed", -1),
        ("seed", 2**32),
        ("lr", 0.0),
        ("lr", math.nan),
        ("lr", math.inf),
        ("lr", "1e-4"),
        ("lr", None),
        ("rho", 1.0),
        ("rho", -1),
        ("rho", math.nan),
        ("rho", "optimal"),
        ("rho", [0.5]),
        ("obs_variance", -0.5),
        ("hidden", (0,)),
        ("hidden", 200),
        ("hidden", "200"),
        ("image_shape", (28, 28)),
        ("method", ""),
        ("gradient", 3),
        ("limit", 0),
        ("data_root", 5),
        ("num_views", 0),
        ("beta", 0),
    ],
)
def test_a_value_that_is_not_allowed_is_named(name, value):
    with pytest.raises(InputError) as caught:
        Settings(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name}: expected ") and ", got " in message
    assert len(message.splitlines()) == 1 and len(message) < 250


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "settings: expected a JSON object, got list"),
        ({"stepz": 3}, "'stepz': no such setting"),
        ({"format": 2}, "format: expected 1, got 2"),
        ({"format": True}, "format: expected 1, got True"),
        ({"steps": "many"}, "steps: expected an integer"),
    ],
)
def test_json_that_is_no_settings(document, message):
    with pytest.raises(InputError, match=message):
        Settings.from_json(document)


def test_integers_are_taken_for_numbers():
    assert Settings(lr=1).lr == 1.0 and isinstance(Settings(lr=1).lr, float)
    assert isinstance(Settings(rho=0).rho, float)


def test_first_difference_ignores_where_the_data_lie():
    settings = Settings()
    assert settings.first_difference(replace(settings, data_root="/elsewhere", builder="a:b")) is None
    for name, value in {"seed": 1, "rho": "learned", "hidden": (3,), "limit": 9, "image_shape": (1, 28, 28)}.items():
        assert settings.first_difference(replace(settings, **{name: value})) == name


def test_every_setting_has_help():
    assert all(info.help for info in setting_infos().values())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON | st.dictionaries(st.sampled_from([*setting_infos(), "format"]), JSON, max_size=4))
def test_any_document_is_settings_or_an_error_of_one_line(document):
    try:
        settings = Settings.from_json(document)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert Settings.from_json(settings.to_json()) == settings
