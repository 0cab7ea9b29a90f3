"""The section on factors of variation: the numbers of ``evaluation.json``, and no section where there are none."""

import json
import shutil

import pytest

from pyro_avae.errors import InputError
from pyro_avae.report import build_report
from pyro_avae.report.runs import read_runs


@pytest.fixture
def measured(runs, tmp_path):
    """A copy of a run whose evaluation has, or has instead, what is given as disentanglement."""

    def make(found):
        path = shutil.copytree(runs[0], tmp_path / "measured")
        document = json.loads((path / "evaluation.json").read_text())
        (path / "evaluation.json").write_text(json.dumps({**document, "disentanglement": found}))
        return path

    return make


def place(mig, modularity):
    return {"mig": {"mean": mig}, "modularity": {"mean": modularity}}


FOUND = {"local": {"0.1": place(0.125, 0.94), "1.0": place(None, 0.455)}, "global": place(0.006, 0.4)}


def test_the_numbers_are_in_the_page(measured, runs):
    page = build_report([measured(FOUND), runs[1]])
    assert "<h2>Disentanglement</h2>" in page and "ρ = 0.1" in page
    for cells in ("<td>MIG</td><td>0.125</td><td>–</td><td>0.006</td>", "<td>0.940</td><td>0.455</td><td>0.400</td>"):
        assert cells in page
    assert page.count("<td>modularity</td>") == 1, "the other run has no factors"


def test_without_factors_there_is_no_section(runs):
    assert "Disentanglement" not in build_report([runs[0]])


@pytest.mark.parametrize("found", [7, {"local": [1]}, {"local": {"near": {}}}, {"global": {"mig": 0.5}}])
def test_something_else_is_refused(measured, found):
    with pytest.raises(InputError, match="disentanglement"):
        read_runs([measured(found)])
