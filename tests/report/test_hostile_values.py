"""Any text and any number in what a report reads: the page says it in letters, or one line says what is wrong."""

import copy
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from pyro_avae.errors import InputError
from pyro_avae.evaluation.ood.metrics import METRICS
from pyro_avae.report import read_runs, write_report
from pyro_avae.report.influence_section import influence_sections

relaxed = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}

TEXTS = st.one_of(
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</td></table><iframe src=//x>",
            "\" onload=alert(1) x='",
            "javascript:alert(1)",
            "' style='x:expression(1)' '",
            "<!--",
            "]]>",
            "&lt;b&gt;&#60;&",
            "{{ 7 * 7 }}{% include 'x' %}",
            "<svg/onload=alert(1)>",
            "\ud800<b>",
            "\x00<b>\x1b\n<i>",
            "$\\frac{",
        ]
    ),
    st.text(alphabet="<>\"'&;=/ javscript:onlbxé\n$", max_size=20),
)
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1e308, -1e308, 10**400, float("nan"), float("inf"), [], {}, [1], {"a": 1}, ""]),
    st.integers(),
    st.floats(),
    TEXTS,
)

INTERVAL = {"value": 0.75, "low": 0.5, "high": 1.0}
SCORE = {
    **dict.fromkeys(METRICS, INTERVAL),
    "mean": {"inside": 1.0, "outside": 2.0},
    "values": {"inside": [0.5, 1.5], "outside": [1.5, 2.5]},
}
OOD = {
    "inside": "digits",
    "outside": "letters",
    "num_images": {"inside": 2, "outside": 2},
    "scores": {"bits": SCORE},
    "absent": {"ratio": "no background"},
}
FACT = {"name": "seven", "image": 3, "value": 1.5, "loss": 20.0}
INFLUENCE = {
    "checkpoints": [{"step": 10}],
    "train_images": 30,
    "num_samples": 4,
    "note": "a remark",
    "self_influence": {"top": [FACT]},
    "test": [{"image": 1}],
    "same_label": {"digit": {"strongest_proponent": 0.5, "strongest_opponent": 0.1, "any_image": 0.1}},
}


def no_pairs(run):
    raise InputError("left out to be quick")


@pytest.fixture
def run(runs, tmp_path, monkeypatch) -> Path:
    """A run that has everything a report reads; figures are laid out, and not drawn."""
    path = Path(shutil.copytree(runs[1], tmp_path / "run"))
    (path / "ood.json").write_text(json.dumps(OOD))
    (path / "influence.json").write_text(json.dumps(INFLUENCE))
    monkeypatch.setattr(Figure, "savefig", lambda self, buffer, **options: buffer.write(b"<svg/>"))
    return path


FILES = ("evaluation.json", "config.json", "ood.json", "influence.json")
#: Names that are the reader's, not what a data set, method or user calls something.
FREE = {"tasks", "bound", "scores", "absent", "same_label"}


def spoiled(document, text, *, free=False):
    """Every text of a document, and every key that is a name of the user's, with another in its place."""
    if isinstance(document, dict):
        return {
            (f"{key}{text}" if free else key): spoiled(value, text, free=key in FREE) for key, value in document.items()
        }
    if isinstance(document, list):
        return [spoiled(value, text) for value in document]
    return f"{document}{text}" if isinstance(document, str) else document


def places(document, place=()):
    """The place of every value in a document, itself included."""
    yield place
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document[:2])
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        yield from places(value, (*place, key))


def write(run, out, read_page, title="The title"):
    """The page, or None where one line refused it; no half of one is left either way."""
    out.unlink(missing_ok=True)
    try:
        write_report([run], out, loader=no_pairs, title=title, extras=influence_sections(read_runs([run])))
    except InputError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 2000
        assert not list(out.parent.glob("*.html*"))
        return None
    return read_page(out.read_text(encoding="utf-8"))


@pytest.fixture
def with_texts(run, runs, tmp_path, read_page):
    """The page of a run in which every text has another behind it."""

    def make(text):
        for name in FILES:
            source = {"ood.json": OOD, "influence.json": INFLUENCE}.get(name)
            document = json.loads((runs[1] / name).read_text()) if source is None else source
            (run / name).write_text(json.dumps(spoiled(document, text)))
        return write(run, tmp_path / "r.html", read_page, title=f"Title {text}")

    return make


@pytest.fixture
def harmless(with_texts):
    """The page with a letter behind every text."""
    return with_texts("x")


@settings(max_examples=10, **relaxed)
@given(text=TEXTS)
def test_no_element_and_no_attribute_comes_from_a_text(with_texts, harmless, text):
    """The page has the elements, with the names of attributes, that it has where every text is harmless."""
    page = with_texts(text)
    assert page.tags == harmless.tags
    assert [(tag, name) for tag, name, _ in page.attributes] == [(tag, name) for tag, name, _ in harmless.attributes]
    assert all(value.startswith("data:image/") for value in page.values("img", "src"))
    assert not page.values("a", "href")
    words = "".join(letter if letter.isprintable() else " " for letter in text).split()
    assert all(word in page.text for word in words if len(word) > 12), "in letters"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"mse_255": 10**400}, "–"),
        ({"mse_255": 1e300}, "1.0e+300"),
        ({"mse_255": float("nan")}, "–"),
        ({"mse_255": float("-inf")}, "–"),
        ({"num_test_images": 10**400}, None),
        ({"evaluation_seed": -1}, None),
    ],
)
def test_a_number_that_no_column_holds(run, tmp_path, read_page, changes, shown):
    document = json.loads((run / "evaluation.json").read_text())
    (run / "evaluation.json").write_text(json.dumps({**document, **changes}))
    page = write(run, tmp_path / "r.html", read_page)
    assert (page is None) == (shown is None)
    if page is not None:
        assert next(rows for rows in page.tables if rows[0][1:2] == ["MSE"])[1][2] == shown


@settings(max_examples=40, **relaxed)
@given(data=st.data())
def test_any_value_in_any_place_is_shown_or_one_line(run, runs, tmp_path, read_page, data):
    for name, own in (("ood.json", OOD), ("influence.json", INFLUENCE)):
        (run / name).write_text(json.dumps(own))
    shutil.copy(runs[1] / "evaluation.json", run / "evaluation.json")
    name = data.draw(st.sampled_from(["evaluation.json", "ood.json", "influence.json"]))
    document = copy.deepcopy(json.loads((run / name).read_text()))
    for _ in range(data.draw(st.integers(1, 2))):
        *above, last = data.draw(st.sampled_from([place for place in places(document) if place]))
        holder = document
        for key in above:
            holder = holder[key]
        if data.draw(st.integers(0, 4)) == 0:
            del holder[last]
        else:
            holder[last] = data.draw(VALUES)
        if not list(places(document))[1:]:
            break
    (run / name).write_text(json.dumps(document))
    page = write(run, tmp_path / "r.html", read_page)
    if page is not None:
        assert not {"script", "iframe", "object", "link", "base", "form"} & set(page.tags)
        assert not [name for _, name, _ in page.attributes if name.startswith("on")]
