"""The sentences of the report follow from the numbers, in every direction."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyro_avae.report.findings import difference, findings
from pyro_avae.report.runs import Run

N = 360


def run(label: str, accuracy: dict[str, float], *, dataset: str = "d", majority: float = 0.1) -> Run:
    evaluation = {"tasks": {"digit": {"accuracy": accuracy, "majority": majority}}, "num_test_images": N}
    return Run(Path(label), label, {"method": label, "dataset": dataset}, [], evaluation)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10_000))
def test_the_verdict_is_two_standard_errors(before: float, after: float, images: int) -> None:
    found = difference("0.1", before, after, images_before=images, images_after=images)
    bar = 2 * math.sqrt((before * (1 - before) + after * (1 - after)) / images)
    assert (found.verdict == "no difference") == (abs(after - before) <= bar)
    assert (found.verdict == "gain") == (after - before > bar)
    mirrored = difference("0.1", after, before, images_before=images, images_after=images)
    assert {found.verdict, mirrored.verdict} in ({"gain", "loss"}, {"no difference"})


def test_chance_alone_rarely_makes_a_difference() -> None:
    p, trials = 0.6, 4000
    draws = np.random.default_rng(0).binomial(N, p, size=(trials, 2)) / N
    called = [difference("0", a, b, images_before=N, images_after=N).verdict != "no difference" for a, b in draws]
    # Two standard errors leave 4.55 % outside. Accuracies come in steps of 1/N, and the tails of one step are unsure.
    outside, error = math.erfc(math.sqrt(2)), math.sqrt(2 * p * (1 - p) / N)
    step = 2 * math.exp(-2) / math.sqrt(2 * math.pi) / error / N
    assert abs(np.mean(called) - outside) < 4 * math.sqrt(outside * (1 - outside) / trials) + step


@pytest.mark.parametrize(
    ("accuracy", "verdict", "words"),
    [
        ({"0.0": 0.9, "0.1": 0.8}, "gain", ["gains at ε = 0.1 (20.0\u00a0% → 80.0\u00a0%)", "no difference"]),
        ({"0.0": 0.5, "0.1": 0.2}, "no difference", ["loses at ε = 0 (90.0\u00a0% → 50.0\u00a0%)"]),
        ({"0.0": 0.9, "0.1": 0.05}, "loss", ["loses at ε = 0.1", "At ε = 0.1 it is no better than always saying"]),
        ({"0.0": 0.9, "0.1": 0.21}, "no difference", ["shows no difference beyond two standard errors at ε = 0 ("]),
    ],
)
def test_sentences(accuracy: dict[str, float], verdict: str, words: list[str]) -> None:
    (finding,) = findings([run("a", {"0.0": 0.9, "0.1": 0.2}), run("b", accuracy)])
    assert finding.verdict == verdict
    for part in words:
        assert part in finding.sentence
    assert finding.sentence.startswith("digit: against a, b ")


def test_a_gain_and_a_loss_are_mixed() -> None:
    (finding,) = findings(
        [run("a", {"0.0": 0.9, "0.1": 0.2, "0.2": 0.5}), run("b", {"0.0": 0.9, "0.1": 0.6, "0.2": 0.1})]
    )
    assert finding.verdict == "mixed"
    assert "gains at ε = 0.1" in finding.sentence
    assert "it loses at ε = 0.2" in finding.sentence


def test_only_runs_on_one_data_set_are_compared() -> None:
    first, other, second = run("a", {"0.0": 1.0}), run("b", {"0.0": 0.1}, dataset="e"), run("c", {"0.0": 0.2})
    found = findings([first, other, second])
    assert [(one.reference, one.run) for one in found] == [("a", "c")]


def test_radii_of_one_run_alone_are_left_out() -> None:
    assert findings([run("a", {"0.1": 0.5}), run("b", {"0.2": 0.5})]) == []
    (finding,) = findings([run("a", {"0.1": 0.5, "0.2": 0.1}), run("b", {"0.2": 0.5})])
    assert [d.epsilon for d in finding.differences] == ["0.2"]
