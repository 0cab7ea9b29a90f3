"""The report of two real runs: its numbers, that it asks for nothing, that it can be read."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pyro_avae.data import load_dataset
from pyro_avae.evaluation import evaluate
from pyro_avae.experiments.evaluate import write_evaluation
from pyro_avae.report import build_report, write_report
from pyro_avae.runs import RunFolder, StoredProbes, load, load_run, stored_probes

#: Attributes through which a page can ask for something.
ADDRESSES = ("src", "href", "srcset", "action", "formaction", "data", "poster", "background", "xlink:href")


def table_of(page, corner: str) -> list[list[str]]:
    """The table whose first heading is ``corner``."""
    return next(rows for rows in page.tables if rows[0][0] == corner)


def evaluation(run: Path) -> dict:
    return json.loads((run / "evaluation.json").read_text())


def test_accuracies_are_those_of_the_evaluations(page, runs: list[Path]) -> None:
    head, *rows = table_of(page, "task")
    assert head == ["task", "run", "ε = 0", "ε = 0.03", "majority class"]
    expected = []
    for task in ("digit", "color"):
        for place, run in enumerate(runs):
            measured = evaluation(run)["tasks"][task]
            numbers = [*measured["accuracy"].values(), measured["majority"]]
            expected.append([*([task] if place == 0 else []), run.name, *(f"{100 * n:.1f}" for n in numbers)])
    assert rows == expected


def test_bound_and_likelihood_are_those_of_the_evaluations(page, runs: list[Path]) -> None:
    head, *rows = table_of(page, "run")
    assert head[:3] == ["run", "MSE", "MSE, 0–255"]
    assert head[3:7] == ["bound: x", "bound: z", "bound: z_aux", "bound"]
    for run, row in zip(runs, rows, strict=True):
        measured = evaluation(run)
        numbers = [cell.replace("−", "-") for cell in row[1:]]
        terms = [measured["bound"].get(term) for term in ("x", "z", "z_aux", "total")]
        assert numbers[0] == f"{measured['mse']:.5f}"
        assert numbers[1] == f"{measured['mse_255']:.1f}"
        assert numbers[2:6] == ["–" if term is None else f"{term:.1f}" for term in terms]
        assert numbers[6] == f"{measured['log_likelihood']:.1f}"
        assert numbers[7] == f"{measured['psis_khat']['median']:.2f}"


def test_settings_that_differ_are_marked(page) -> None:
    rows = {row[0]: row[1:] for row in table_of(page, "setting")}
    assert rows["setting"] == ["vae", "avae"]
    assert rows["method"] == ["vae", "avae"]
    assert rows["hidden"] == ["16", "16"]
    assert page.values("tr", "class").count("differs") == 1, "method, and nothing else"


def test_it_asks_for_nothing_and_runs_nothing(page, report: Path) -> None:
    assert not {"script", "iframe", "object", "embed", "link", "form", "base", "svg"} & set(page.tags)
    addresses = [value for _, name, value in page.attributes if name in ADDRESSES]
    assert addresses
    assert all(value.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,")) for value in addresses)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    style = re.search(r"<style>(.*)</style>", report.read_text(), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    assert "default-src 'none'" in report.read_text()


def test_every_picture_is_one_and_says_what_it_shows(page) -> None:
    sources, texts = page.values("img", "src"), page.values("img", "alt")
    assert len(sources) == len(texts) == page.tags.count("img")
    assert all(texts)
    for source in sources:
        kind, _, content = source.partition(";base64,")
        start = base64.b64decode(content, validate=True)[:200]
        assert start.startswith(b"\x89PNG" if kind.endswith("png") else b"<?xml"), source[:60]
    # Curves: training, robustness, kept classes. Grids: one strip of images, then strip and passes of each run.
    # Examples: 2 tasks x (clean + 2 runs) x 8 images.
    assert sum("svg" in source[:20] for source in sources) == 3
    assert sum("png" in source[:20] for source in sources) == 1 + 2 + 2 + 2 * 3 * 8


def test_the_curves_name_their_runs_and_ends(page, runs: list[Path]) -> None:
    training = next(text for text in page.values("img", "alt") if text.startswith("Training curves"))
    for run in runs:
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
        assert f"{run.name} ends at a loss of {last['loss']:.1f}" in training


def test_examples_say_what_the_probe_says(page) -> None:
    attacked = [text for text in page.values("img", "alt") if text.startswith("attacked image")]
    wrong = sum(
        re.search(r", \w+ (\w+), classified as (\w+)", text).expand(r"\1") != text.split()[-1] for text in attacked
    )
    assert page.values("figure", "class").count("example wrong") == wrong
    assert page.values("figure", "class").count("example right") == len(attacked) - wrong


def test_the_chain_stands_next_to_rho(page) -> None:
    head, vae, avae = next(rows for rows in page.tables if "lag-1 correlation" in rows[0])
    assert vae[head.index("ρ")] == "none"
    assert avae[head.index("ρ")] == "0.975"
    for row in (vae, avae):
        assert -1 <= float(row[head.index("lag-1 correlation")].replace("−", "-")) <= 1
        assert float(row[head.index("R̂, max")]) > 0.9


def test_the_same_runs_make_the_same_page(runs: list[Path], report: Path) -> None:
    assert build_report(runs) == report.read_text(encoding="utf-8")


def test_probes_that_the_evaluation_fitted_are_not_fitted_again(train_run, tmp_path, monkeypatch) -> None:
    run = train_run("vae", "vae", evaluated=False)
    model, guide, config = load(run)
    data = load_dataset(config.dataset, limit=config.limit)
    options = {"epsilons": [0.0, 0.03], "steps": 3, "limit": 60, "num_importance_samples": 30}
    result = evaluate(model, guide, data, **options, fit=StoredProbes(RunFolder(run).probes))
    write_evaluation(RunFolder(run), load_run(run), result)

    def refused(*args, **kwargs):
        raise AssertionError("fitted again")

    with monkeypatch.context() as patch:
        patch.setattr(stored_probes, "fit_probe", refused)
        with_them = write_report([run], tmp_path / "with.html").read_text()
    RunFolder(run).probes.unlink()
    assert write_report([run], tmp_path / "without.html").read_text() == with_them
    assert not RunFolder(run).probes.exists()


def test_it_is_written_whole_for_all_to_read(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    assert write_report(runs[:1], out, title="One & only") == out
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]
    content = out.read_text(encoding="utf-8")
    assert content.startswith("<!doctype html>")
    assert "<h1>One &amp; only</h1>" in content


def test_a_browser_shows_its_pictures(report: Path, tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium to open the page with")
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    shot = tmp_path / "shot.png"
    subprocess.run(
        [
            browser,
            *quiet,
            f"--user-data-dir={tmp_path}",
            "--window-size=900,6000",
            f"--screenshot={shot}",
            report.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    # The page's own policy must let its pictures through: digits in full colours on black are nowhere else.
    black = (pixels.max(-1) < 20).sum()
    colourful = ((pixels.max(-1) > 200) & (pixels.min(-1) < 60)).sum()
    assert black > 10_000
    assert colourful > 10_000
