"""``pyro-avae evaluate``: what its options do, and what it prints."""

import io
import json

import pytest
from rich.console import Console

from pyro_avae.experiments.cli import main
from pyro_avae.experiments.evaluation_table import evaluation_table

TINY = ("--hidden", "16", "--latent-dim", "4", "--batch-size", "8", "--limit", "60", "--steps", "12", "--device", "cpu")
QUICK = ("--limit", "20", "--steps", "2", "--device", "cpu", "--no-progress")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a dozen steps on the embedded digits."""
    folder = tmp_path_factory.mktemp("runs") / "avae"
    assert main(["train", "--dataset", "color-digits", *TINY, "--out", str(folder)]) == 0
    return folder


def evaluated(run):
    return json.loads((run / "evaluation.json").read_text())


def test_a_grid_of_radii_and_the_checks_are_on_by_default(cli, run):
    status, out, err = cli("evaluate", run, "--epsilons", "0", "0.1", "0.2", "0.3", "0.5", *QUICK)
    assert (status, err) == (0, "")
    for word in ("majority", "PGD, balanced", "noise", "0.3", "gradient masking"):
        assert word in out
    document = evaluated(run)
    assert document["attack"]["pgd"]["restarts"] == 4
    for task in document["tasks"].values():
        assert list(task["accuracy"]) == ["0.0", "0.1", "0.2", "0.3", "0.5"]
        assert task["gradient_masking"]["epsilon"] == 0.5
        assert task["accuracy"]["0.5"] <= task["majority"]


def test_the_norm_of_the_radii(cli, run):
    status, out, _ = cli("evaluate", run, "--norm", "l2", "--epsilons", "0", "2.5", *QUICK)
    assert status == 0 and "L2 2.5" in out
    document = evaluated(run)
    assert document["attack"]["norms"] == ["Linf", "L2"]
    digit = document["tasks"]["digit"]
    assert list(digit["accuracy"]) == ["0.0"]
    assert list(digit["accuracy_l2"]) == ["0.0", "2.5"]
    assert digit["accuracy_l2"]["0.0"] == digit["accuracy"]["0.0"]
    assert cli("evaluate", run, "--epsilons", "0.1", "--epsilons-l2", "1", *QUICK).status == 0
    digit = evaluated(run)["tasks"]["digit"]
    assert (list(digit["accuracy"]), list(digit["accuracy_l2"])) == (["0.1"], ["1.0"])


def test_tasks_samples_and_transfer(cli, run):
    words = ("--tasks", "color", "--representation", "sample", "--transfer-from", run, "--epsilons", "0.1")
    status, out, _ = cli("evaluate", run, *words, "--restarts", "1", *QUICK)
    assert status == 0 and "transfer" in out and "digit" not in out.replace("color-digits", "")
    document = evaluated(run)
    assert list(document["tasks"]) == ["color"]
    assert list(document["tasks"]["color"]["accuracy_transfer"]) == ["0.1"]
    transfer = document["attack"]["transfer"]
    assert transfer["steps"] == 2
    origin = {"run": str(run), "method": "avae", "dataset": "color-digits", "seed": 0, "steps": 12}
    assert transfer["from"] == origin


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--norm", "l1"], "--norm: expected linf or l2, got 'l1'"),
        (["--norm", "l2", "--epsilons-l2", "1"], "--epsilons-l2: expected beside --norm linf"),
        (["--epsilons", "2.5"], "--epsilons: expected L∞ radii in [0, 1] (pixels lie in [0, 1]), got 2.5"),
        (["--epsilons", "-1"], "--epsilons: expected a number of at least 0, got '-1'"),
        (["--epsilons-l2", "far"], "--epsilons-l2: expected a number of at least 0, got 'far'"),
        (["--tasks", "hat"], "tasks: expected some of digit, color (color-digits), got 'hat'"),
        (["--representation", "mode"], "representation: expected one of mean, sample, got 'mode'"),
        (["--transfer-from", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line(refused, run, words, message):
    assert message in refused("evaluate", run, "--device", "cpu", *words)


def test_transfer_needs_a_run_on_the_same_data(refused, run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    other = tmp_path / "other"
    (other / "checkpoints").mkdir(parents=True)
    for path in (run / "checkpoints").iterdir():
        (other / "checkpoints" / path.name).write_bytes(path.read_bytes())
    (other / "config.json").write_text(json.dumps({**config, "dataset": "color-mnist"}))
    message = refused("evaluate", run, "--transfer-from", other, "--device", "cpu")
    assert message.startswith(
        "--transfer-from: expected a run on color-digits, as the one that is evaluated, got one on"
    )


DOCUMENT = {
    "method": "avae",
    "dataset": "toy",
    "steps": 3,
    "bound": {"total": -1.0},
    "mse": 0.1,
    "mse_255": 6502.5,
    "log_likelihood": -1.0,
    "psis_khat": {"median": 0.5},
    "tasks_skipped": {"hat": "all 9 test labels are of class 0"},
}
CHECK = {
    "epsilon": 0.5,
    "accuracy": {"pgd": 0.9, "noise": 0.4},
    "chance": 0.5,
    "at_or_below_chance": False,
    "stronger_than_pgd": [{"attack": "noise", "norm": "Linf", "epsilon": 0.5, "accuracy": 0.4, "pgd": 0.9}],
}


def test_the_table_says_what_cannot_be_believed():
    task = {"accuracy": {"0.1": 0.9}, "balanced_accuracy": {"0.1": 0.8}, "majority": 0.7, "gradient_masking": CHECK}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(evaluation_table({**DOCUMENT, "tasks": {"glasses": task}}))
    lines = console.export_text().splitlines()  # a line each, though the table is narrower
    assert "glasses: gradient masking suspected, PGD leaves 90.0 % at ε = 0.5 where chance is 50.0 %" in lines
    assert "glasses: gradient masking suspected, noise leaves 40.0 % and PGD 90.0 % at Linf ε = 0.5" in lines
    assert "hat: left out, all 9 test labels are of class 0" in lines
    assert not any("none seen" in line for line in lines)


def test_without_a_task_the_table_still_says_why():
    table = evaluation_table({**DOCUMENT, "tasks": {}})
    assert [*table.columns[0].cells][-1] == "hat: left out, all 9 test labels are of class 0"


def test_measures_that_are_asked_for(cli, run):
    words = ("--fid", "--latent-attack", "--margin", "0.5", "--images", "4", "--epsilons", "0", "0.1")
    status, out, _ = cli("evaluate", run, *words, "--restarts", "1", *QUICK)
    assert status == 0
    document = evaluated(run)
    assert list(document["latent_attack"]["radii"]) == ["0.1"] and document["latent_attack"]["num_images"] == 4
    assert document["robustness_margin"]["r"] == 0.5 and len(document["robustness_margin"]["margins"]) == 4
    assert document["fid"]["fid_features"].startswith("classifier trained on color-digits")
    for words in ("FID ", "latent attack, ε = 0.1: symmetric KL", "r-robustness margin, r = 0.5"):
        assert words in out
    assert cli("evaluate", run, *QUICK).status == 0
    assert not {"fid", "latent_attack", "robustness_margin"} & evaluated(run).keys()


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--fid", "vgg"), "features: expected"), (("--margin", "0"), "--margin: expected a finite number above 0")],
)
def test_measures_that_do_not_exist(refused, run, words, message):
    assert message in refused("evaluate", run, *words, *QUICK)


def test_a_latent_attack_has_no_l2_radii(refused, run):
    words = ("--norm", "l2", "--epsilons", "1", "--latent-attack")
    assert refused("evaluate", run, *words, *QUICK).startswith("--latent-attack: its radii are L-infinity radii")


def test_images_without_known_factors_have_no_disentanglement(refused, run):
    message = refused("evaluate", run, "--disentanglement", *QUICK)
    assert message.startswith(
        "--disentanglement: expected a run on a data set made from known factors, three-dots, got"
    )
