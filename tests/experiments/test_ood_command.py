"""``pyro-avae ood``: what it writes, what it prints, what the report shows of it, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from pyro_avae.errors import InputError
from pyro_avae.experiments.cli import main
from pyro_avae.report import build_report, read_run
from pyro_avae.report.ood import ood_extras, read_ood

TRAIN = ("--likelihood", "categorical", "--hidden", "8", "--latent-dim", "2", "--steps", "2")
FEW = ("--limit", "6", "--steps", "2", "--no-progress", "--device", "cpu")


def folder_of_images(path, *, side, levels, seed):
    """30 grey images of noise."""
    path.mkdir()
    pixels = np.random.default_rng(seed).integers(*levels, size=(30, side, side), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image, "L").save(path / f"{number}.png")
    return f"folder:{path}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three tiny runs on dark images and one on larger images; ``bright`` are images of the first's shape."""
    top = tmp_path_factory.mktemp("runs")
    dark = folder_of_images(top / "dark", side=8, levels=(0, 100), seed=0)
    large = folder_of_images(top / "large", side=12, levels=(0, 100), seed=1)
    folder_of_images(top / "bright", side=8, levels=(150, 256), seed=2)
    for name, seed, dataset in (("one", 0, dark), ("two", 1, dark), ("background", 2, dark), ("other", 0, large)):
        words = ("--method", "vae", "--dataset", dataset, "--seed", seed, "--out", top / name)
        command = ("train", *words, *TRAIN, "--no-progress", "--device", "cpu")
        assert main([str(word) for word in command]) == 0
    return top


def bright(runs):
    return ("--ood", f"folder:{runs / 'bright'}")


def test_scores_of_one_run(runs, cli):
    done = cli("ood", runs / "one", *bright(runs), *FEW)
    assert (done.status, done.err) == (0, "")
    document = read_ood(runs / "one" / "ood.json")
    assert (document["inside"], document["outside"]) == (f"folder:{runs / 'dark'}", f"folder:{runs / 'bright'}")
    # a tenth of a folder's images is its test split
    assert document["num_images"] == {"inside": 3, "outside": 3, "train": 6}
    assert set(document["absent"]) == {"likelihood_ratio", "waic"}
    assert {"regret_free", "regret_encoder"} <= set(document["scores"])
    assert (runs / "one" / "ood.svg").read_text().startswith("<?xml")
    assert "WAIC: absent, takes runs of several seeds" in done.out

    (extra,) = ood_extras([read_run(runs / "one")])
    assert extra.heading == f"vae: folder:{runs / 'bright'} beside folder:{runs / 'dark'}"
    assert [row[0] for row in extra.table.rows][1] == "likelihood regret, free posterior"
    assert extra.table.rows[-1][1] == "absent: takes runs of several seeds"
    assert ood_extras([read_run(runs / "other")]) == []


@pytest.mark.slow
def test_the_report_has_a_section_of_it(runs, cli):
    assert cli("ood", runs / "one", *bright(runs), *FEW).status == 0
    page = build_report([runs / "one", runs / "two"])
    assert page.count("bright beside folder:") >= 1
    assert page.count("absent: takes") == 2


def test_other_runs_bring_the_scores_that_need_them(runs, cli):
    others = ("--background", runs / "background", "--ensemble", runs / "one", "--variant", "free")
    done = cli("ood", runs / "two", *bright(runs), *others, *FEW)
    assert (done.status, done.err) == (0, "")
    document = read_ood(runs / "two" / "ood.json")
    assert {"likelihood_ratio", "waic"} <= set(document["scores"])
    assert document["absent"] == {"regret_encoder": "not asked for"}
    assert document["training_seed"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("BRIGHT", "--variant", "both"), "--variant: expected some of free, encoder, got 'both'"),
        (("--ood", "mnits"), "dataset: expected one of color-digits, "),
        (("--ood", "color-digits"), "--ood: expected images of shape (1, 8, 8), as those of folder:"),
        (("BRIGHT", "--steps", "0"), "argument --steps: expected an integer in 1..1000000"),
        (("BRIGHT", "--lr", "0"), "argument --lr: expected a number above 0"),
        (("BRIGHT", "--limit", "0"), "argument --limit: expected"),
        ((), "the following arguments are required: --ood"),
        (
            ("BRIGHT", "--background", "OTHER"),
            "--background: expected a run on images of shape (1, 8, 8), got one on (1,",
        ),
        (("BRIGHT", "--ensemble", "OTHER"), "--ensemble: expected runs on folder:"),
        (("BRIGHT", "--background", "NONE"), "NONE: expected the folder of a run, found no config.json in it"),
    ],
)
def test_what_cannot_be_scored_is_refused(runs, refused, options, message):
    meant = {"OTHER": (runs / "other",), "BRIGHT": bright(runs)}
    words = [word for option in options for word in meant.get(option, (option,))]
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
