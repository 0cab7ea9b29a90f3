"""Bars of variants and curves of measures: what is drawn where."""

import numpy as np
import pytest

from pyro_avae.report import ablation, measure_curves
from pyro_avae.report.ablation import Variant, ablation_bars

VARIANTS = [
    Variant("sampled", {"digit": {"0.1": 0.5, "0.0": 0.9}, "color": {"0.0": 1.0}}),
    Variant("mean $view$", {"digit": {"0.0": 0.8, "0.1": 0.25}}),
]


def test_every_accuracy_has_its_bar(figure_of) -> None:
    figure = figure_of(ablation, ablation_bars, VARIANTS)
    digit, color = figure.axes
    bars = {(round(bar.get_y() + bar.get_height() / 2, 2), round(bar.get_width(), 6)) for bar in digit.patches}
    # Groups at 0 and 1, the smaller radius first, a third of a unit each.
    assert bars == {(-0.17, 90.0), (0.17, 50.0), (0.83, 80.0), (1.17, 25.0)}
    assert [bar.get_width() for bar in color.patches] == [100.0]
    assert [label.get_text() for label in digit.get_yticklabels()] == ["sampled", r"mean \$view\$"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ε = 0", "ε = 0.1"]


def test_the_majority_class_is_a_line_in_its_panel(figure_of) -> None:
    figure = figure_of(ablation, ablation_bars, VARIANTS, ylabel="view", majority={"color": 0.25})
    digit, color = figure.axes
    assert digit.get_lines() == []
    assert [list(line.get_xdata()) for line in color.get_lines()] == [[25, 25]]
    assert (digit.get_ylabel(), color.get_ylabel()) == ("view", "")
    assert figure.legends[0].get_texts()[-1].get_text() == "majority class"


def test_bars_are_told(figure_of) -> None:
    picture = ablation_bars(VARIANTS)
    assert picture is not None
    assert picture.alt.startswith("Accuracy under attack of each variant. sampled: digit 50.0 % at 0.1, digit 90.0 %")


@pytest.mark.parametrize("variants", [[], [Variant("a", {})], [Variant("a", {"digit": {}})]])
def test_no_accuracy_no_bars(variants) -> None:
    assert ablation_bars(variants) is None


def test_measures_stand_at_the_places_of_all_values(figure_of) -> None:
    measures = {"error": {0.999: 0.1, 0.0: 0.4}, "KL, nats": {0.0: 3.0, 0.5: 2.0, 0.999: 1.0}, "nothing": {}}
    figure = figure_of(measure_curves, measure_curves.measure_curves, measures, xlabel="ρ")
    error, kl = figure.axes
    (line,) = error.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0, 0.4], [2, 0.1]])
    (line,) = kl.get_lines()
    np.testing.assert_allclose(line.get_xydata(), [[0, 3], [1, 2], [2, 1]])
    for axis in (error, kl):
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.5", "0.999"]
