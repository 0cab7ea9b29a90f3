"""``pyro-avae reproduce``: two rows for real on embedded digits, again, interrupted, refused; all rows on real data."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.experiments import reproduction, row_runs
from pyro_avae.experiments.paper_experiments import EXPERIMENTS
from pyro_avae.experiments.redraw import redraw
from pyro_avae.experiments.reproduce import reproduce
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.training import NonFiniteError
from pyro_avae.training.step import SVIStep

RADII = ["0.0", "0.1", "0.2"]


def small(out: Path, *, rows: list[str], **options: Any) -> dict[str, Any]:
    """A reproduction that needs no download."""
    return reproduce("color-mnist", out, dataset="color-digits", preset="smoke", device="cpu", rows=rows, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two finished rows, one of which starts from the other; read it, do not change it."""
    out = tmp_path_factory.mktemp("reproduce") / "out"
    small(out, rows=["avae", "avae-ss"])
    return out


@pytest.fixture
def copy(done: Path, tmp_path: Path) -> Path:
    """The same, elsewhere, for one's own."""
    return shutil.copytree(done, tmp_path / "out")


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time of a small reproduction."""
    monkeypatch.setattr(reproduction, "write_reproduction_report", lambda *args, **options: None)


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``idle("train_run", "evaluate")``: calls of these are failures from now on."""

    def forbid(*names: str) -> None:
        for name in names:
            monkeypatch.setattr(row_runs, name, lambda *args, name=name, **options: pytest.fail(f"{name} was called"))

    return forbid


def strict(path: Path) -> Any:
    """JSON without NaN or infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def parameters(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = newest_checkpoint(run / "checkpoints")
    assert checkpoint is not None
    return {name: t for name, t in checkpoint.tensors.items() if name.startswith(("model.", "guide."))}


def test_rows_are_normal_runs(done: Path) -> None:
    assert sorted(path.name for path in done.iterdir()) == sorted(
        ["avae", "avae-ss", "vae", "curves.svg", "report.html", "results.json", "table.md"]
    )
    for name in ("vae", "avae", "avae-ss"):
        folder = RunFolder(done / name / "seed-0")
        settings = folder.read_settings()
        assert (settings.method, settings.steps, settings.dataset) == (name, 20, "color-digits")
        evaluation = strict(folder.evaluation)
        assert evaluation["steps"] == 20
        assert evaluation["fid"]["fid"] is not None
        assert "classifier trained on color-digits" in evaluation["fid"]["fid_features"]
    assert settings.start_from == str(done / "vae" / "seed-0")


def test_the_post_processing_starts_from_the_vae_of_its_seed(done: Path) -> None:
    before, after = (parameters(done / name / "seed-0") for name in ("vae", "avae-ss"))
    decoder = [name for name in before if name.startswith("model.observation")]
    encoder = [name for name in before if name.startswith("guide.encoder")]
    assert all(torch.equal(before[name], after[name]) for name in decoder)
    assert not all(torch.equal(before[name], after[name]) for name in encoder)


def test_results_have_the_promised_form(done: Path) -> None:
    document = strict(done / "results.json")
    assert (document["dataset"], document["preset"], document["failed"]) == ("color-digits", "smoke", [])
    assert {"python", "torch", "pyro-ppl"} <= document["versions"].keys()
    assert {"cpu", "gpu", "cores", "device"} <= document["machine"].keys()
    assert [row["row"] for row in document["rows"]] == ["vae", "avae", "avae-ss"]
    for row in document["rows"]:
        assert row["method"] == row["row"]
        assert row["paper"] is None, "the paper has no embedded digits"
        assert Settings.from_json(row["settings"]).method == row["method"]
        ours = row["ours"]
        evaluation = strict(done / row["row"] / "seed-0" / "evaluation.json")
        assert (ours["steps"], ours["seeds"]) == (20, [0])
        for task in ("digit", "color"):
            assert list(ours["accuracy"][task]) == RADII
            for radius in RADII:
                found = ours["accuracy"][task][radius]
                assert found["per_seed"] == [evaluation["tasks"][task]["accuracy"][radius]]
                assert found["mean"] == pytest.approx(found["per_seed"][0])
                assert found["standard_error"] is None
        constant = 3 * 28 * 28 / 2 * 1.1447298858494002  # log pi
        assert ours["gaussian_nll_0.5"]["mean"] == pytest.approx(constant + evaluation["sse"])
        assert ours["sse"]["mean"] == pytest.approx(evaluation["sse"])
        assert ours["fid"]["mean"] == pytest.approx(evaluation["fid"]["fid"])
    pace = {row["row"]: row["ours"]["seconds_per_step"]["mean"] for row in document["rows"]}
    for row in document["rows"]:
        assert row["ours"]["time"]["mean"] == pytest.approx(pace[row["row"]] / pace["vae"])


def test_the_table_has_the_numbers(done: Path) -> None:
    page = (done / "table.md").read_text()
    ours = strict(done / "results.json")["rows"][1]["ours"]
    (line,) = re.findall(r"^\| AVAE \|.*$", page, flags=re.MULTILINE)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1:7] == [
        f"{100 * ours['accuracy'][task][radius]['mean']:.1f}" for task in ("digit", "color") for radius in RADII
    ]
    assert cells[8:11] == [
        f"{ours['gaussian_nll_0.5']['mean']:.1f}",
        f"{ours['sse']['mean']:.2f}",
        f"{ours['fid']['mean']:.2f}",
    ]
    assert "The AVAE over ρ" in page


def test_the_figures_can_be_drawn_again_from_the_results(done: Path, copy: Path) -> None:
    (copy / "curves.svg").unlink()
    assert redraw(copy / "results.json") == [copy / "curves.svg"], "of sweep and ablation there is one row"
    assert (copy / "curves.svg").read_bytes() == (done / "curves.svg").read_bytes()


def test_the_report_is_one_page_with_the_labels(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "The paper&#39;s rows beside ours" in page
    for words in ("Encode, decode, encode", "Adversarial examples", "Accuracy over the radius", "AVAE-SS"):
        assert words in page
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page)


def test_again_nothing_is_run(done: Path, copy: Path, idle) -> None:
    idle("train_run", "evaluate")
    before = (copy / "report.html").stat().st_mtime_ns
    # In another folder, too: the run that avae-ss started from lies beside it there.
    again = small(copy, rows=["avae", "avae-ss"])
    assert [row["ours"] for row in again["rows"]] == [row["ours"] for row in strict(done / "results.json")["rows"]]
    assert (copy / "report.html").stat().st_mtime_ns == before


def test_another_evaluation_trains_nothing(copy: Path, idle, no_report: None) -> None:
    idle("train_run")
    document = small(copy, rows=["avae"], epsilons=[0.0, 0.3])
    assert list(document["rows"][0]["ours"]["accuracy"]["digit"]) == ["0.0", "0.3"]
    assert [row["row"] for row in document["rows"]] == ["avae"], "the others were evaluated otherwise"
    assert not (copy / "report.html").exists(), "the old one had other numbers"


def test_a_damaged_evaluation_is_made_again(copy: Path, idle, no_report: None) -> None:
    idle("train_run")
    (copy / "avae" / "seed-0" / "evaluation.json").write_text("{")
    assert len(small(copy, rows=["avae"])["rows"]) == 3


def test_an_interrupted_run_goes_on(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None
) -> None:
    out, step = tmp_path / "out", SVIStep.__call__

    def stopped_at_7(svi: SVIStep, *batches: torch.Tensor, number: int, **options: Any) -> None:
        step(svi, *batches, number=number, **options)
        if number == 7 and "z_aux" in svi.rows()[0]:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="step 7, which is saved"):
        patch.setattr(SVIStep, "__call__", stopped_at_7)
        small(out, rows=["vae", "avae"])
    assert [row["row"] for row in strict(out / "results.json")["rows"]] == ["vae"], "what was finished is kept"
    first: list[int] = []

    def counted(svi: SVIStep, *batches: torch.Tensor, number: int, **options: Any) -> None:
        first.append(number)
        step(svi, *batches, number=number, **options)

    monkeypatch.setattr(SVIStep, "__call__", counted)
    document = small(out, rows=["vae", "avae"])
    assert [row["row"] for row in document["rows"]] == ["vae", "avae"]
    assert first == list(range(8, 21)), "the AVAE from where it was, the VAE not at all"
    whole, resumed = parameters(done / "avae" / "seed-0"), parameters(out / "avae" / "seed-0")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_other_settings_are_refused_before_anything_runs(copy: Path, idle) -> None:
    idle("train_run", "evaluate")
    with pytest.raises(InputError, match=r"--steps: the run in .*vae.* has 20, this call wants 30; give another --out"):
        small(copy, rows=["avae-ss"], steps=30)


def test_a_failed_row_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_report: None
) -> None:
    train = row_runs.train_run

    def diverges(settings: Settings, *args: Any, **options: Any) -> Any:
        if settings.method == "se":
            raise NonFiniteError("step 3: loss is not finite")
        return train(settings, *args, **options)

    monkeypatch.setattr(row_runs, "train_run", diverges)
    with pytest.raises(InputError, match=r"failed: se-0.1 \(seed 0\); the first one: step 3"):
        small(tmp_path / "out", rows=["se-0.1", "avae"], steps=2)
    document = strict(tmp_path / "out" / "results.json")
    assert [row["row"] for row in document["rows"]] == ["avae"]
    assert document["failed"] == [{"row": "se-0.1", "seed": 0, "error": "step 3: loss is not finite"}]
    assert document["rows"][0]["ours"]["time"] is None, "there is no VAE to compare with"


def test_seeds_give_a_mean_and_its_error(tmp_path: Path, no_report: None) -> None:
    ours = small(tmp_path / "out", rows=["vae"], steps=2, seed=3, seeds=2)["rows"][0]["ours"]
    assert ours["seeds"] == [3, 4]
    first, second = ours["sse"]["per_seed"]
    assert first != second
    assert ours["sse"]["mean"] == pytest.approx((first + second) / 2)
    # s / sqrt(2) of two numbers is half their distance.
    assert ours["sse"]["standard_error"] == pytest.approx(abs(first - second) / 2)
    assert ours["time"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mnist"], "table: expected one of color-mnist, celeba, .*got 'mnist'"),
        (["color-mnist", "--preset", "huge"], "--preset: expected one of smoke, cpu, full, got 'huge'"),
        (["color-mnist", "--rows", "vea"], "--rows: expected some of table, sweep, ablation, vae, .*got 'vea'"),
        (["celeba", "--rows", "sweep"], "--rows: expected some of table, vae, .*got 'sweep'"),
        (
            ["color-mnist", "--dataset", "celeba"],
            "--dataset: expected color-mnist or color-fashion-.*'celeba'",
        ),
        (["color-mnist", "--epsilons", "2"], "--epsilons"),
        (["color-mnist", "--attack", "boo"], "attack: expected one of pgd, autoattack, got 'boo'"),
        (["color-mnist", "--seeds", "0"], "--seeds"),
        (["color-mnist", "--steps", "x"], "--steps"),
        (["color-mnist", "--device", "abacus"], "device: expected a device"),
    ],
)
def test_bad_options_give_one_line(tmp_path: Path, refused, words: list[str], message: str) -> None:
    assert re.search(message, refused("reproduce", *words, "--out", tmp_path / "out", "--no-progress"))
    assert not (tmp_path / "out").exists()


def test_data_that_are_not_there_are_no_failed_rows(tmp_path: Path, refused) -> None:
    message = refused("reproduce", "celeba", "--data-root", tmp_path, "--out", tmp_path / "out", "--no-progress")
    assert message.startswith("celeba: expected")
    assert not (tmp_path / "out" / "results.json").exists()


def test_the_command_line_says_where_everything_is(copy: Path, cli) -> None:
    words = ["--dataset", "color-digits", "--preset", "smoke", "--rows", "vae", "--device", "cpu"]
    status, out, err = cli("reproduce", "color-mnist", *words, "--out", copy)
    assert (status, err) == (0, "")
    assert "1 runs, 1 of them finished before" in out
    assert f"written to {copy / 'results.json'}" in out
    command = strict(copy / "results.json")["command"]
    assert command.startswith(f"pyro-avae reproduce color-mnist --out {copy} ")
    assert "--rows vae" in command


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.published])
def test_all_rows_in_under_ten_minutes(name: str, tmp_path: Path, data_root: Path) -> None:
    if name == "celeba" and not any((data_root / folder).is_dir() for folder in ("celeba", "celeba_half")):
        pytest.skip(f"no CelebA in {data_root}")
    began = time.monotonic()
    document = reproduce(name, tmp_path / "out", preset="smoke", data_root=data_root, device="cpu")
    assert time.monotonic() - began < 600
    experiment = EXPERIMENTS[name]
    assert [row["row"] for row in document["rows"]] == [row.name for row in experiment.rows]
    assert {row["row"] for row in document["rows"] if row["paper"] is not None} == set(experiment.published)
    page = (tmp_path / "out" / "report.html").read_text()
    published = page.count("the paper</th>")
    assert published == len(experiment.published)
    if name == "color-mnist":
        assert "Sweep over ρ" in page
        assert "Ablation of the AVAE" in page
