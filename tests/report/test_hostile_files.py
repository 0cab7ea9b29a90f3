"""Any value anywhere in what a report reads: a page, or one line."""

import copy
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood.metrics import METRICS
from pyro_avae.report import build_report, read_runs
from pyro_avae.report.influence_section import influence_sections
from pyro_avae.report.ood import ood_extras

scalars = st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.text(max_size=3)
scalars |= st.sampled_from([10**400, -(10**400), 1e308, -1e308, "9" * 5000, "a\nb", "nan", "<b>"])
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner))

OOD = {
    "method": "vae",
    "inside": "color-digits",
    "outside": "mnist",
    "num_images": {"inside": 3, "outside": 3},
    "absent": {"waic": "no ensemble"},
    "scores": {
        "likelihood": {
            "values": {"inside": [0.0, 1.0, 2.0], "outside": [1.0, 3.0, 4.0]},
            "mean": {"inside": 1.0, "outside": 2.7},
            **{metric: {"value": 0.5, "low": 0.4, "high": 0.6} for metric in METRICS},
        }
    },
}
FACT = {"image": 3, "name": "7", "value": 1.5, "loss": 2.5}
INFLUENCE = {
    "train_images": 100,
    "num_samples": 16,
    "checkpoints": [{"step": 10}],
    "note": "",
    "self_influence": {"top": [FACT]},
    "test": [{**FACT, "proponents": [FACT], "opponents": [FACT]}],
    "same_label": {"digit": {"strongest_proponent": 0.5, "strongest_opponent": 0.1, "any_image": 0.1}},
}


@pytest.fixture(scope="module")
def run(runs, tmp_path_factory) -> Path:
    """An evaluated run with all that a report reads, and nothing to load."""
    folder = Path(shutil.copytree(runs[0], tmp_path_factory.mktemp("hostile") / "run"))
    shutil.rmtree(folder / "checkpoints")
    (folder / "ood.json").write_text(json.dumps(OOD))
    (folder / "influence.json").write_text(json.dumps(INFLUENCE))
    return folder


def no_pair(run):
    raise InputError("not of interest here")


def page(folder: Path) -> str:
    return build_report([folder], loader=no_pair, extras=influence_sections(read_runs([folder])))


def places(document, path=()):
    """Every place in a document, as a path of keys."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    yield path
    for key, value in list(inner)[:8]:
        yield from places(value, (*path, key))


def changed(document, path, value):
    if not path:
        return value
    document = copy.deepcopy(document)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


def test_an_honest_run_has_a_page(run):
    text = page(run)
    assert "VAE-TracIn of 100 training images" in text and "mnist" in text


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["evaluation.json", "ood.json", "influence.json", "config.json"]), documents, st.data())
def test_any_value_anywhere(run, name, value, data):
    file = run / name
    honest = file.read_text()
    document = json.loads(honest)
    path = data.draw(st.sampled_from(list(places(document))))
    try:
        file.write_text(json.dumps(changed(document, path, value)))
        page(run)
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and str(error).isprintable() and name in str(error)
    finally:
        file.write_text(honest)


NASTY = [None, True, -1, 10**400, 1e308, float("inf"), float("nan"), "a\nb", [], {}, [1], {"a": 1}]


def test_every_value_in_every_place_of_what_influence_and_ood_wrote(run):
    read = {
        "influence.json": lambda: influence_sections(read_runs([run])),
        "ood.json": lambda: ood_extras(read_runs([run])),
    }
    refused = 0
    for name, honest in (("influence.json", INFLUENCE), ("ood.json", OOD)):
        for path in places(honest):
            # Pictures take their time: numbers alone are tried in all of them.
            slow = name == "ood.json" and (len(path) < 2 or not isinstance(path[-1], int))
            for value in NASTY[3:7] if slow else NASTY:
                (run / name).write_text(json.dumps(changed(honest, path, value)))
                try:
                    read[name]()
                except InputError as error:
                    refused += 1
                    assert len(str(error).splitlines()) == 1 and name in str(error)
        (run / name).write_text(json.dumps(honest))
    assert refused > 100


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(30), b"<svg onload='x'>"])
def test_a_picture_that_is_none(run, content):
    picture = run / "influence-self.png"
    picture.write_bytes(content)
    with pytest.raises(InputError, match=r"influence-self\.png: expected a PNG"):
        page(run)
    picture.unlink()
