"""``results.json`` with any value in any place: its figures, all of them, or one line and those that were there."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from pyro_avae.experiments.redraw import main
from pyro_avae.experiments.results_figures import FIGURES

VALUES = st.one_of(
    st.sampled_from(
        [None, True, -1, 2, 1e308, 10**400, float("nan"), float("inf"), [], {}, [1], {"a": 1}, "", "ρ" * 500]
    ),
    st.floats(),
    st.text(alphabet="<>\"'&$\\_{}\n\x00\ud800x", max_size=12),
)


def places(value, place=()):
    yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))


@pytest.fixture
def results(row, document):
    """Rows of the table, the sweep and the ablation."""
    rows = [row("vae", [0.9, 0.8]), row("avae", [0.9, 0.7], rho=0.5), row("se", [0.6], rho=0.25)]
    return json.loads(json.dumps(document(*rows)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_is_drawn_or_one_line(results, tmp_path, monkeypatch, capsys, data):
    monkeypatch.setattr(Figure, "savefig", lambda self, buffer, **options: buffer.write(b"<svg/>"))
    changed = copy.deepcopy(results)
    read = [place for place in places(results) if place and ("settings" not in place[:-1] or place[-1] == "rho")]
    *above, last = data.draw(st.sampled_from(read))
    holder = changed
    for key in above:
        holder = holder[key]
    if data.draw(st.booleans()):
        holder[last] = data.draw(VALUES)
    else:
        del holder[last]
    for name in FIGURES:
        (tmp_path / name).write_text("earlier")
    (tmp_path / "results.json").write_text(json.dumps(changed))
    status = main([str(tmp_path / "results.json")])
    out, err = capsys.readouterr()
    content = {name: (tmp_path / name).read_text() for name in FIGURES if (tmp_path / name).exists()}
    if status == 0:
        assert err == "" and "earlier" not in content.values()
    else:
        assert (status, out) == (2, "") and len(err.splitlines()) == 1
        assert err.startswith("redraw: error: ") and "results.json: " in err
        assert content == dict.fromkeys(FIGURES, "earlier")
    assert {path.name for path in tmp_path.iterdir()} <= {"results.json", *FIGURES}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "3", '"x"', "null", "{}", '{"rows": 3}', "[" * 100_000, '{"rows": [{}]}']
)
def test_another_document_is_one_line(tmp_path, capsys, content):
    (tmp_path / "results.json").write_text(content)
    assert main([str(tmp_path / "results.json")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
