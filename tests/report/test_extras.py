"""Sections of one's own: where they stand, that they are escaped, that nothing else changes; curves over a setting."""

import base64
import math
import re
from pathlib import Path

import numpy as np
import pytest

from pyro_avae.errors import InputError
from pyro_avae.report import Extra, ExtraTable, build_report
from pyro_avae.report import sweep_curves as sweep_curves_module
from pyro_avae.report.sweep_curves import sweep_curves

HOSTILE = "<script>alert('x')</script>"
POINTS = {
    0.999: {"digit": {"0.1": 0.5, "0.0": 0.9}, "color": {"0.0": 1.0}},
    0.0: {"digit": {"0.0": 0.8, "0.1": 0.1}, "color": {"0.0": 0.25}},
    0.975: {"digit": {"0.0": 0.7}, "color": {"0.0": 0.75}},
}


def no_pairs(run):
    raise InputError("left out to be quick")


def build(runs: list[Path], **options) -> str:
    return build_report(runs, loader=no_pairs, **options)


@pytest.fixture
def axes_of(figure_of):
    """The visible panels of the figure that ``sweep_curves`` draws."""

    def draw(points, **options):
        figure = figure_of(sweep_curves_module, sweep_curves, points, xlabel="ρ", alt="x", **options)
        return [axis for axis in figure.axes if axis.get_visible()]

    return draw


def test_extras_come_first_and_in_order(runs: list[Path], read_page) -> None:
    curves = sweep_curves(POINTS, xlabel="ρ", alt="Accuracy over ρ.")
    table = ExtraTable("Per cent", ["method", "ε = 0.1"], [["ours", "84.9"], ["published", "88"]], emphasised=[1])
    extras = [Extra("Second thoughts", ["A paragraph."], table, curves, "Over ρ."), Extra("Another")]
    content = build(runs, extras=extras)
    page = read_page(content)
    order = [page.text.index(words) for words in ("Second thoughts", "A paragraph.", "Per cent", "Over ρ.", "Another")]
    assert order == sorted(order)
    assert order[0] > page.text.index("every picture is made from the trained pairs")
    assert order[-1] < page.text.index("In words")
    assert page.tables[0] == [["method", "ε = 0.1"], ["ours", "84.9"], ["published", "88"]]
    assert re.findall(r'<tr class="quiet">.*?</tr>', content) == [
        '<tr class="quiet"><th scope="row">published</th><td>88</td></tr>'
    ]
    assert page.values("img", "alt")[0] == "Accuracy over ρ."


def test_without_extras_nothing_changes(runs: list[Path]) -> None:
    plain = build(runs)
    assert build(runs, extras=()) == plain
    content = build(runs, extras=[Extra("Mine", ["Words."])])
    section = re.search(r"<section>\n<h2>Mine</h2>\n<p>Words.</p>\n</section>\n", content)
    assert section is not None
    # An added section's numbers come from elsewhere, and the page's first lines must not claim otherwise.
    assert "Below the added sections, every number is read from the run folders" in content
    assert "Every number is read from the run folders" in plain
    without = content[: section.start()] + content[section.end() :]
    assert without.replace("Below the added sections, every", "Every") == plain


def test_extras_are_escaped(runs: list[Path], read_page) -> None:
    table = ExtraTable(HOSTILE, [HOSTILE, "x"], [[HOSTILE, HOSTILE]])
    picture = sweep_curves(POINTS, xlabel=HOSTILE, alt=f'"{HOSTILE}')
    content = build(runs, extras=[Extra(HOSTILE, [HOSTILE], table, picture, HOSTILE)])
    page = read_page(content)
    assert "script" not in page.tags
    assert page.tables[0] == [[HOSTILE, "x"], [HOSTILE, HOSTILE]]
    assert page.values("img", "alt")[0] == f'"{HOSTILE}'
    # Heading, paragraph, three cells, two captions, a picture's text.
    assert content.count("&lt;script&gt;") == 8


def test_a_caption_needs_a_picture(runs: list[Path]) -> None:
    assert "Over nothing" not in build(runs, extras=[Extra("Mine", picture=None, caption="Over nothing")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExtraTable("", ["a", "b"], [["1", "2"], ["3"]]), r"expected 2 cells in row 1.*got \['3'\]"),
        (lambda: ExtraTable("", ["a", "b"], ["12"]), "expected 2 cells in row 0"),
        (lambda: ExtraTable("", ["a"], [["1"]], emphasised=[1]), "expected numbers of rows, 0 to 0, got 1"),
        (lambda: Extra("a", "one text"), "expected a list of texts, got 'one text'"),
        (lambda: sweep_curves({0.0: {"digit": {"0": 7.0}}}, xlabel="", alt=""), r"accuracy in \[0, 1\], got 7.0 at 0"),
        (lambda: sweep_curves({0.0: {"digit": {"0": math.nan}}}, xlabel="", alt=""), "got nan at 0"),
        (lambda: sweep_curves({0.0: {"digit": {"far": 0.7}}}, xlabel="", alt=""), "radii that are numbers, got 'far'"),
        (lambda: sweep_curves({math.inf: {}}, xlabel="", alt=""), "finite values of the setting, got inf"),
    ],
)
def test_what_cannot_be_shown_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_sweep_draws_every_accuracy_at_its_value(axes_of) -> None:
    digit, color = axes_of(POINTS)
    assert (digit.get_title(loc="left"), color.get_title(loc="left")) == ("digit", "color")
    for axis in (digit, color):
        assert list(axis.get_xticks()) == [0, 1, 2]
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.975", "0.999"]
        assert axis.get_xlabel() == "ρ (values at equal distances)"
    clean, attacked = digit.get_lines()
    np.testing.assert_allclose(clean.get_ydata(), [80, 70, 90])
    # No accuracy at 0.975: the line is broken, not drawn through.
    np.testing.assert_allclose(attacked.get_ydata(), [10, math.nan, 50])
    (only,) = color.get_lines()
    np.testing.assert_allclose(only.get_ydata(), [25, 75, 100])
    assert only.get_color() == clean.get_color() != attacked.get_color()
    assert [text.get_text() for text in digit.figure.legends[0].get_texts()] == ["ε = 0", "ε = 0.1"]


def test_a_sweep_shows_the_majority_class(axes_of) -> None:
    digit, color = axes_of(POINTS, majority={"digit": 0.125, "shape": 0.5})
    assert [len(axis.get_lines()) for axis in (digit, color)] == [3, 1]
    assert list(digit.get_lines()[-1].get_ydata()) == [12.5, 12.5]
    names = [text.get_text() for text in digit.figure.legends[0].get_texts()]
    assert names == ["ε = 0", "ε = 0.1", "majority class"]


def test_close_values_keep_their_digits(axes_of) -> None:
    (axis,) = axes_of({value: {"digit": {"0": 0.5}} for value in (0.9999999, 1.0)})
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.9999999", "1"]


def test_a_sweep_is_an_svg_that_does_not_vary() -> None:
    first, second = (sweep_curves(POINTS, xlabel="ρ", alt="Over ρ.") for _ in range(2))
    assert first == second
    assert first is not None
    assert b"<svg" in base64.b64decode(first.uri.removeprefix("data:image/svg+xml;base64,"))


@pytest.mark.parametrize(
    "points", [{}, {0.5: {"digit": {"0": 0.5}}}, {0.0: {}, 1.0: {}}, {0.0: {"digit": {}}, 1.0: {}}]
)
def test_no_sweep_no_picture(points) -> None:
    assert sweep_curves(points, xlabel="ρ", alt="") is None
