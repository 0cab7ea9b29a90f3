"""Run folders from elsewhere, in a process of their own: what they name is not run."""

import json
import shutil
import sys

import pytest
import torch

from pyro_avae.experiments.cli import main

TRAIN = ["train", "--dataset", "color-digits", "--hidden", "8", "--latent-dim", "3", "--limit", "60", "--steps", "4"]
TRAIN += ["--device", "cpu", "--no-progress"]
OWN = "from pathlib import Path\nPath('mark').touch()\nfrom pyro_avae.experiments.methods import build\n"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A run of four steps."""
    run = tmp_path_factory.mktemp("honest") / "run"
    with torch.random.fork_rng(devices=[]):
        assert main([*TRAIN, "--method", "vae", "--out", str(run)]) == 0
    return run


@pytest.fixture
def hostile(honest, tmp_path):
    """The same, but its builder is in a module of the current directory; and the module, which leaves a mark."""
    run = tmp_path / "run"
    shutil.copytree(honest, run)
    config = json.loads((run / "config.json").read_text())
    config |= {"builder": "their_module:build", "method": "vae", "steps": 8}
    (run / "config.json").write_text(json.dumps(config))
    (tmp_path / "their_module.py").write_text(OWN)
    return run


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "run"],
        ["influence", "run"],
        ["ood", "run", "--ood", "color-digits"],
        ["report", "run", "--out", "report.html"],
        ["train", "--out", "run", "--resume"],
    ],
    ids=lambda words: words[0],
)
def test_a_builder_that_nobody_asked_for_is_not_imported(process, hostile, words):
    before = {path: path.read_bytes() for path in hostile.parent.rglob("*") if path.is_file()}
    running = process(*words, "--device", "cpu", "--no-progress")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2 and out == "", err
    (line,) = err.splitlines()
    assert "run/config.json: builder: expected " in line and line.endswith("(in Python trust='their_module:build')")
    after = {path: path.read_bytes() for path in hostile.parent.rglob("*") if path.is_file() and path.name != ".lock"}
    assert after == {path: content for path, content in before.items() if path.name != ".lock"}


def test_starting_from_a_run_takes_its_tensors_and_runs_nothing(process, hostile):
    running = process(*TRAIN[:1], *TRAIN[7:], "--method", "avae", "--from", "run", "--out", "new")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, (out, err)
    assert not (hostile.parent / "mark").exists()
    shutil.rmtree(hostile / "checkpoints")
    running = process(*TRAIN[:1], *TRAIN[7:], "--method", "avae", "--from", "run", "--out", "other")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2 and len(err.splitlines()) == 1, err
    assert not (hostile.parent / "mark").exists() and not (hostile.parent / "other").exists()


def test_with_a_word_it_is_imported_and_after_training_with_it_without_one(cli, refused, hostile, monkeypatch):
    monkeypatch.chdir(hostile.parent)
    monkeypatch.setenv("XDG_STATE_HOME", str(hostile.parent / "state"))
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    evaluate = ["evaluate", "run", "--epsilons", "0", "--limit", "10", "--device", "cpu", "--no-progress"]
    report = ["report", "run", "--out", "report.html", "--no-progress"]
    trust = ["--trust", "other:build", "--trust", "their_module:build"]
    assert "--trust" in refused(*evaluate) and "--trust" in refused(*evaluate, *trust[:2])
    assert not (hostile.parent / "mark").exists()
    for words in (evaluate, report):
        done = cli(*words, *trust)
        assert done.status == 0 and "No pictures" not in done.err, done.err
    assert (hostile.parent / "mark").exists()
    assert "--trust" in refused(*evaluate), "said once, meant once"
    assert cli("train", "--out", "run", "--resume", "--device", "cpu", "--no-progress", *trust).status == 0
    assert cli(*evaluate).status == 0
