"""Hostile names, missing and damaged files: escaped, said, or one line of error; never a traceback."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.cli import main
from pyro_avae.report import build_report, read_run, read_runs

HOSTILE = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>$\\foo$"


@pytest.fixture
def copy(runs: list[Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the VAE's run that may be damaged."""
    return lambda name: Path(shutil.copytree(runs[0], tmp_path / name))


def change(path: Path, **values) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_what_comes_from_files_is_escaped(copy, read_page) -> None:
    run = copy("_run")
    evaluation = json.loads((run / "evaluation.json").read_text())
    tasks = {HOSTILE: evaluation["tasks"]["color"]}
    change(run / "evaluation.json", tasks=tasks, bound={HOSTILE: 1.0, "total": 1.0})
    change(run / "config.json", method=HOSTILE, dataset=HOSTILE)
    with (run / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 61, "loss": 1.0, HOSTILE: 2.0, "_hidden": 1.0}) + "\n")
    other = copy("other")
    content = build_report([run, other], title=HOSTILE)
    page = read_page(content)
    assert "script" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:") for value in page.values("img", "src"))
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in content
    assert page.text.count("<script>alert('x')</script>") >= 4, "heading, run, task and settings show it as text"


def test_half_a_surrogate_pair_does_not_stop_the_report(copy, tmp_path: Path) -> None:
    run = copy("run")
    change(run / "config.json", data_root="\ud800")
    assert main(["report", str(run), "--out", str(tmp_path / "r.html"), "--no-progress"]) == 0


def test_a_run_that_was_not_evaluated_says_so(train_run, tmp_path: Path, capsys, read_page) -> None:
    run = train_run("fresh", "vae", evaluated=False)
    out = tmp_path / "report.html"
    assert main(["report", str(run), "--out", str(out), "--no-progress"]) == 0
    assert f"pyro-avae evaluate {run}" in capsys.readouterr().err
    page = read_page(out.read_text(encoding="utf-8"))
    assert f"Not evaluated: run 'pyro-avae evaluate {run}'" in page.text
    assert "Accuracy under attack" not in page.text
    assert "Reconstructions" in page.text, "the pair is there, so are its pictures"


def test_an_unfinished_run_has_curves_and_a_stated_gap(copy, read_page) -> None:
    run = copy("run")
    shutil.rmtree(run / "checkpoints")
    (run / "evaluation.json").unlink()
    log = (run / "log.jsonl").read_text()
    (run / "log.jsonl").write_text(log[:-20])
    page = read_page(build_report([run]))
    assert "No pictures:" in page.text
    assert "no intact checkpoint" in page.text
    assert any(text.startswith("Training curves") for text in page.values("img", "alt"))


def test_a_log_of_one_step_or_none(copy, read_page) -> None:
    run = copy("run")
    (run / "log.jsonl").write_text('{"step": 1, "loss": 5.0, "x": null, "z": NaN}\n')
    assert "nan" not in read_page(build_report([run])).text
    (run / "log.jsonl").unlink()
    assert "No training curve" in read_page(build_report([run])).text


def test_numbers_that_are_missing_are_dashes(copy, read_page) -> None:
    run = copy("run")
    change(run / "evaluation.json", mse=None, log_likelihood=None, psis_khat={"median": None}, bound={"x": None})
    rows = next(rows for rows in read_page(build_report([run])).tables if rows[0][1:2] == ["MSE"])
    assert rows[1][1] == rows[1][-3] == rows[1][-2] == rows[1][-1] == "–"


def test_runs_of_one_method_are_told_apart(copy) -> None:
    labels = [run.label for run in read_runs([copy("first"), copy("second")])]
    assert labels == ["vae (first)", "vae (second)"]


def test_autoattack_stands_beside_pgd(copy, read_page) -> None:
    run = copy("run")
    tasks = json.loads((run / "evaluation.json").read_text())["tasks"]
    tasks["digit"]["accuracy_autoattack"] = {"0.0": 0.5, "0.03": 0.125}
    change(run / "evaluation.json", tasks=tasks)
    page = read_page(build_report([run]))
    assert "AA 12.5" in page.text
    assert "Hollow: AutoAttack" in page.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: shutil.rmtree(run), "found no config.json"),
        (lambda run: (run / "config.json").unlink(), "found no config.json"),
        (lambda run: (run / "config.json").write_text("{"), "config.json: expected JSON"),
        (lambda run: (run / "config.json").write_text("[]"), "expected a JSON object, got list"),
        (lambda run: (run / "log.jsonl").write_bytes(b"\xff\xfe{"), "log.jsonl: expected a line of JSON a step"),
        (lambda run: (run / "evaluation.json").write_text("half"), "evaluation.json: expected JSON"),
        (lambda run: (run / "evaluation.json").write_text("3"), "expected a JSON object, got 3"),
        (lambda run: change(run / "evaluation.json", tasks=[1]), "tasks: expected an object"),
        (lambda run: change(run / "evaluation.json", tasks={"digit": {}}), "accuracies in [0, 1] by radius, got None"),
        (
            lambda run: change(run / "evaluation.json", tasks={"digit": {"accuracy": {"0.1": 7}}}),
            "tasks: 'digit': accuracy: expected accuracies in [0, 1]",
        ),
        (
            lambda run: change(run / "evaluation.json", tasks={"digit": {"accuracy": {"far": 0.7}}}),
            "tasks: 'digit': accuracy: expected accuracies in [0, 1]",
        ),
        (lambda run: change(run / "evaluation.json", num_test_images="many"), "num_test_images: expected a count"),
        (lambda run: change(run / "evaluation.json", attack={"epsilons": "all"}), "attack: epsilons: expected"),
        (lambda run: change(run / "evaluation.json", attack={"pgd": {"steps": -1}}), "attack: pgd: expected"),
    ],
)
def test_damaged_runs_give_one_line(copy, tmp_path: Path, capsys, damage, message: str) -> None:
    run = copy("run")
    damage(run)
    assert main(["report", str(run), "--out", str(tmp_path / "r.html")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "r.html").exists()


def test_other_input_errors(runs: list[Path], tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match="at least one run folder"):
        build_report([])
    with pytest.raises(InputError, match="once"):
        build_report([runs[0], runs[0] / "." / "checkpoints" / ".."])
    assert main(["report", str(runs[0]), "--out", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    blocker = tmp_path / "file"
    blocker.write_text("")
    assert main(["report", str(runs[0]), "--out", str(blocker / "r.html"), "--no-progress"]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["report", "--out", "x.html"]) == 2
    assert main(["report", str(runs[0]), "--out", "x.html", "--device", "abacus"]) == 2


def test_a_run_is_what_its_files_say(runs: list[Path]) -> None:
    run = read_run(runs[1])
    assert (run.method, run.dataset, list(run.tasks)) == ("avae", "color-digits", ["digit", "color"])
    assert [row["step"] for row in run.log] == [1, *range(5, 61, 5)]
    assert run.gaps == ()
    assert replace(run, evaluation=None).tasks == {}
