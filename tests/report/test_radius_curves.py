"""Curves over the radius: a line a pair, hollow marks, bars and the majority class where they are given."""

import numpy as np
import pytest

from pyro_avae.report import radius_curves as module
from pyro_avae.report.radius_curves import RadiusCurve, radius_curves
from pyro_avae.report.style import COLORS

CURVES = [
    RadiusCurve("VAE", {"digit": {"0.1": 0.25, "0.0": 0.75}}, {"digit": {"0.1": 0.05}}, {"digit": {"0.1": 0.5}}),
    RadiusCurve("not evaluated", {}, {}, {}),
    RadiusCurve("AVAE", {"digit": {"0.0": 0.5, "0.1": 0.5}, "color": {"0.0": 1.0, "0.1": 0.9}}, {}, {}),
]
OPTIONS = {"majority": {"color": 0.2}, "beside": "the paper's", "joined": False}


def test_every_curve_has_a_line_in_the_panels_it_has_numbers_for(figure_of) -> None:
    digit, color = figure_of(module, radius_curves, CURVES, **OPTIONS).axes
    assert [axis.get_title(loc="left") for axis in (digit, color)] == ["digit", "color"]
    assert [len(axis.containers) for axis in (digit, color)] == [2, 1]
    vae, avae = (container.lines[0] for container in digit.containers)
    np.testing.assert_allclose(vae.get_ydata(), [75, 25])
    # Three curves, of which the first and the last stand a fiftieth of the distance of radii beside the middle.
    np.testing.assert_allclose(vae.get_xdata(), [-0.002, 0.098])
    np.testing.assert_allclose(avae.get_xdata(), [0.002, 0.102])
    assert (vae.get_color(), avae.get_color()) == (COLORS[0], COLORS[2])
    assert [label.get_text() for label in digit.get_xticklabels()] == ["0", "0.1"]


def test_bars_are_where_there_are_numbers_for_them(figure_of) -> None:
    digit, _ = figure_of(module, radius_curves, CURVES, **OPTIONS).axes
    vae, avae = digit.containers
    assert (vae.has_yerr, avae.has_yerr) == (True, False)
    (bars,) = vae.lines[2]
    none, some = bars.get_segments()
    assert len(none) == 0 or np.isnan(none).any()
    np.testing.assert_allclose(some[:, 1], [20, 30])


def test_hollow_marks_are_no_line_unless_joined(figure_of) -> None:
    for joined, dash in ((False, "None"), (True, ":")):
        digit, _ = figure_of(module, radius_curves, CURVES, **{**OPTIONS, "joined": joined}).axes
        (hollow,) = (line for line in digit.get_lines() if line.get_markerfacecolor() == "none")
        assert (hollow.get_linestyle(), hollow.get_color(), list(hollow.get_ydata())) == (dash, COLORS[0], [50])


def test_the_legend_has_what_is_drawn(figure_of) -> None:
    figure = figure_of(module, radius_curves, CURVES, **OPTIONS)
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["VAE", "AVAE", "the paper's", "majority class"]
    figure = figure_of(module, radius_curves, CURVES[2:], **{**OPTIONS, "majority": {}})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["AVAE"]


@pytest.mark.parametrize("curves", [[], CURVES[1:2], [RadiusCurve("a", {"digit": {}}, {}, {})]])
def test_no_accuracy_no_picture(curves) -> None:
    assert radius_curves(curves, **OPTIONS) is None
