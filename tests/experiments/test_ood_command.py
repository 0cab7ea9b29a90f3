"""``pyro-avae ood``: what it writes, what it prints, what the report shows of it, and what it refuses."""

import json

import pytest

from pyro_avae.errors import InputError
from pyro_avae.report import build_report
from pyro_avae.report.ood import read_ood

TRAIN = (
    "train",
    "--method",
    "vae",
    "--likelihood",
    "categorical",
    "--hidden",
    "8",
    "--latent-dim",
    "2",
    "--steps",
    "2",
)
FEW = ("--limit", "6", "--steps", "2", "--no-progress", "--device", "cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, data_root):
    """Three tiny runs on Fashion-MNIST, the last on images with noise in them; and one on coloured digits."""
    from pyro_avae.experiments.cli import main

    folder = tmp_path_factory.mktemp("runs")
    common = (*TRAIN, "--limit", "20", "--data-root", str(data_root), "--no-progress", "--device", "cpu")
    for name, seed, dataset in (
        ("one", 0, "fashion-mnist"),
        ("two", 1, "fashion-mnist"),
        ("background", 0, "mutated-fashion-mnist"),
        ("color", 0, "color-digits"),
    ):
        assert main([*common, "--dataset", dataset, "--seed", str(seed), "--out", str(folder / name)]) == 0
    return folder


def test_scores_of_one_run(runs, cli):
    done = cli("ood", runs / "one", "--ood", "mnist", *FEW)
    assert (done.status, done.err) == (0, "")
    document = read_ood(runs / "one" / "ood.json")
    assert (document["inside"], document["outside"]) == ("fashion-mnist", "mnist")
    assert document["num_images"] == {"inside": 6, "outside": 6, "train": 6}
    assert set(document["absent"]) == {"likelihood_ratio", "waic"}
    assert {"regret_free", "regret_encoder"} <= set(document["scores"])
    assert (runs / "one" / "ood.svg").read_text().startswith("<?xml")
    assert "6 images of fashion-mnist, 6 of mnist" in " ".join(done.out.split())
    assert "absent: takes runs of several seeds" in " ".join(done.out.split())

    page = build_report([runs / "one"])
    assert "<h2>vae: mnist beside fashion-mnist</h2>" in page
    assert "likelihood regret, free posterior" in page
    assert page.count("absent: takes") == 2


def test_other_runs_bring_the_scores_that_need_them(runs, cli):
    others = ("--background", runs / "background", "--ensemble", runs / "one", "--variant", "free")
    done = cli("ood", runs / "two", "--ood", "mnist", *others, *FEW)
    assert (done.status, done.err) == (0, "")
    document = read_ood(runs / "two" / "ood.json")
    assert {"likelihood_ratio", "waic"} <= set(document["scores"])
    assert document["absent"] == {"regret_encoder": "not asked for"}
    assert document["training_seed"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ood", "mnist", "--variant", "both"), "--variant: expected some of free, encoder, got 'both'"),
        (("--ood", "mnits"), "dataset: expected one of color-digits, "),
        (
            ("--ood", "color-mnist"),
            "--ood: expected images of shape (1, 28, 28), as those of fashion-mnist, got (3, 28",
        ),
        (("--ood", "mnist", "--steps", "0"), "argument --steps: expected an integer in 1..1000000"),
        (("--ood", "mnist", "--lr", "0"), "argument --lr: expected a number above 0"),
        (("--ood", "mnist", "--limit", "0"), "argument --limit: expected"),
        ((), "the following arguments are required: --ood"),
        (
            ("--ood", "mnist", "--background", "COLOR"),
            "--background: expected a run on images of shape (1, 28, 28), got",
        ),
        (
            ("--ood", "mnist", "--ensemble", "COLOR"),
            "--ensemble: expected a run on images of shape (1, 28, 28), got one",
        ),
        (("--ood", "mnist", "--background", "NONE"), "NONE: expected the folder of a run, found no config.json in it"),
    ],
)
def test_what_cannot_be_scored_is_refused(runs, refused, options, message):
    words = [runs / "color" if word == "COLOR" else word for word in options]
    assert message in refused("ood", runs / "one", *words, "--device", "cpu", "--no-progress")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("scores"),
        lambda d: d.pop("inside"),
        lambda d: d.pop("absent"),
        lambda d: d["scores"]["drift"].pop("auroc"),
        lambda d: d["scores"]["drift"]["auroc"].update(low=None),
        lambda d: d["scores"]["drift"]["values"].update(inside=[]),
        lambda d: d["scores"]["drift"]["values"].update(inside="12"),
        lambda d: d["scores"].update(drift=3),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change):
    interval = {"value": 0.5, "low": 0.4, "high": 0.6}
    score = {name: dict(interval) for name in ("auroc", "auprc", "fpr95")}
    sides = {"mean": {"inside": 1.0, "outside": 2.0}, "values": {"inside": [1.0], "outside": [2.0]}}
    document = {"inside": "a", "outside": "b", "absent": {}, "num_images": {}, "scores": {"drift": {**score, **sides}}}
    path = tmp_path / "ood.json"
    path.write_text(json.dumps(document))
    assert read_ood(path) == document
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"ood.json: expected what 'pyro-avae ood' writes, got another document"):
        read_ood(path)
