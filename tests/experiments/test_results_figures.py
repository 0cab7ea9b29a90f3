"""The figures made of results: what is drawn, of which rows, and the same bytes every time."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.paper_experiments import EXPERIMENTS
from pyro_avae.experiments.redraw import main, redraw
from pyro_avae.experiments.results_figures import FIGURES, ablation_figure, accuracy_figure, sweep_figure, write_figures
from pyro_avae.experiments.rows import ABLATION, SWEEP, TABLE
from pyro_avae.report.style import COLORS

NAMES = ("vae", "se-0.1", "se-0.2", "avae", "se-avae-0.1", "se-avae-0.2", "avae-ss", "noise-vae", "avae-mean")
RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
DOCS = [path for path in sorted(RESULTS.glob("*/results.json")) if path.parent.name in EXPERIMENTS]


@pytest.fixture
def whole(row, document) -> dict:
    """Nine rows of the table, three of the sweep, three of the ablation."""
    table = [row(name, [0.9, 0.8], groups=(TABLE,)) for name in NAMES]
    sweep = [row(f"rho-{rho}", [0.5], groups=(SWEEP,), rho=rho) for rho in (0.0, 0.5, 0.9)]
    views = [("sample", "cut"), ("mean", "through_z"), ("mean", "cut")]
    ablation = [row(f"{v}-{g}", [0.5], groups=(ABLATION,), view=v, gradient=g) for v, g in views]
    return document(*table, *sweep, *ablation)


def drawn(content: bytes) -> int:
    """How many of the colours of lines occur."""
    return sum(color in content.decode() for color in COLORS)


def test_every_figure_is_an_svg_without_a_raster_image(whole, tmp_path: Path) -> None:
    assert [path.name for path in write_figures(whole, tmp_path)] == list(FIGURES)
    for name in FIGURES:
        root = ElementTree.fromstring((tmp_path / name).read_bytes())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [element for element in root.iter() if element.tag.endswith("}image")]


def test_there_is_a_line_for_each_of_the_first_rows(whole) -> None:
    curves, sweep, ablation = accuracy_figure(whole), sweep_figure(whole), ablation_figure(whole)
    assert curves is not None and sweep is not None and ablation is not None
    assert drawn(curves.content) == len(COLORS) == 8
    assert "NOISE-VAE" in curves.alt and "AVAE-MEAN" not in curves.alt, "the ninth has no colour of its own"
    assert (drawn(sweep.content), drawn(ablation.content)) == (2, 2), "one a radius"
    assert "mean, cut, as it is" in ablation.alt


def test_rows_that_are_not_there_are_left_out(row, document) -> None:
    curves = accuracy_figure(document(row("vae", [0.9]), row("own", [0.8])))
    assert curves is not None
    assert drawn(curves.content) == 2
    assert curves.alt.endswith("digit, VAE: 90.0 % at 0.0, 45.0 % at 0.1; digit, OWN: 80.0 % at 0.0, 40.0 % at 0.1.")


def test_the_paper_s_points_are_hollow_where_there_are_any(row, document) -> None:
    published, ours = (accuracy_figure(document(row(name, [0.9]))) for name in ("vae", "own"))
    assert published is not None and ours is not None
    hollow = b"fill-opacity: 0; stroke: #0072b2"
    assert (hollow in published.content, hollow in ours.content) == (True, False)


def test_few_rows_are_no_sweep_and_no_ablation(row, document) -> None:
    few = document(row("avae", [0.9]), row("own", [0.8], rho=0.5, view="mean"))
    assert (sweep_figure(few), ablation_figure(few)) == (None, None)
    assert accuracy_figure(document()) is None


def test_the_same_numbers_are_the_same_bytes(whole, tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(whole))
        main([str(folder / "results.json")])
    for name in FIGURES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_figure_of_other_rows_does_not_stay(whole, document, tmp_path: Path) -> None:
    write_figures(whole, tmp_path)
    assert write_figures(document(*whole["rows"][:3]), tmp_path) == [tmp_path / "curves.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["curves.svg"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"rows": [{}]}', '{"rows": "abc"}', '{"rows": [1e999]}'])
def test_other_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match="expected what pyro-avae reproduce writes, got other JSON"):
        redraw(tmp_path / "results.json")


@pytest.mark.parametrize("results", DOCS, ids=lambda path: path.parent.name)
def test_the_recorded_results_have_their_figures(results: Path, tmp_path: Path) -> None:
    """Which there are; their bytes depend on the version of matplotlib."""
    drawn = {path.name for path in write_figures(json.loads(results.read_text()), tmp_path)}
    assert {path.name for path in results.parent.glob("*.svg")} == drawn
