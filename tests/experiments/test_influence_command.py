"""``pyro-avae influence``: files, table, report, and what it refuses."""

import json
import sys

import pytest
from PIL import Image

from pyro_avae.errors import InputError
from pyro_avae.experiments import influence_experiment
from pyro_avae.experiments.cli import main
from pyro_avae.report import read_runs
from pyro_avae.report.influence_section import influence_sections

TINY = ("--hidden", "8", "--latent-dim", "3", "--batch-size", "8", "--limit", "40", "--steps", "20", "--device", "cpu")
QUICK = ("--samples", "2", "--test-limit", "3", "--device", "cpu", "--no-progress")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of twenty steps on the embedded digits."""
    folder = tmp_path_factory.mktemp("runs") / "vae"
    given = ["train", "--method", "vae", "--dataset", "color-digits", *TINY, "--keep-every", "10", "--no-progress"]
    assert main([*given, "--out", str(folder)]) == 0
    return folder


def document(run):
    return json.loads((run / "influence.json").read_text())


def test_it_writes_numbers_and_pictures_and_a_section_of_the_report(cli, run, tmp_path):
    status, out, err = cli("influence", run, "--top", "4", *QUICK)
    assert (status, err) == (0, "")
    assert "most self-influential of 40 training images" in " ".join(out.split())
    found = document(run)
    assert [one["step"] for one in found["checkpoints"]] == [10, 20]
    assert found["checkpoints"][0]["weight"] == pytest.approx(1e-3 * 10 / 40)  # that data set's learning rate
    assert found["train_images"] == 40 and found["test_images"] == 3 and found["note"] is None
    top = found["self_influence"]["top"]
    assert len(top) == 4 and [f["value"] for f in top] == sorted((f["value"] for f in top), reverse=True)
    for test in found["test"]:
        best, worst = ([f["value"] for f in test[name]] for name in ("proponents", "opponents"))
        assert best == sorted(best, reverse=True) and worst == sorted(worst) and best[0] > worst[0]
    assert set(found["same_label"]) == {"digit", "color"}
    for name in ("influence-self.png", "influence-test.png"):
        with Image.open(run / name) as image:
            assert image.format == "PNG" and image.size[0] > 100
    page = tmp_path / "report.html"
    assert cli("report", run, "--out", page, "--no-progress").status == 0
    text = page.read_text()
    assert "Self-influence: vae" in text and "Influence on test images: vae" in text


def test_images_of_training_without_test_images_and_by_projection(cli, run):
    assert cli("influence", run, "--limit", "10", *QUICK, "--test-limit", "0").status == 0
    assert document(run)["train_images"] == 10 and document(run)["test"] == [] and document(run)["same_label"] == {}
    exact = document(run)["self_influence"]
    assert cli("influence", run, "--limit", "10", "--projection", "64", *QUICK).status == 0
    assert document(run)["projection"] == 64
    assert [one["image"] for one in document(run)["self_influence"]["top"]] == [o["image"] for o in exact["top"]]


def test_one_checkpoint_is_said_and_enough(cli, tmp_path, caplog):
    given = ("train", "--method", "avae", "--dataset", "color-digits", *TINY, "--keep-every", "0", "--no-progress")
    assert cli(*given, "--out", tmp_path / "run").status == 0
    status, out, _ = cli("influence", tmp_path / "run", *QUICK)
    assert status == 0 and "no checkpoint of training" in " ".join(out.split())
    assert document(tmp_path / "run")["checkpoints"] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--top", "0"], "--top: expected an integer in 1.."),
        (["--samples", "3"], "num_samples: expected an even number of at least 2"),
        (["--projection", "0"], "--projection: expected an integer in 1.."),
        (["--device", "nothing"], "device"),
    ],
)
def test_what_cannot_be_used_is_one_line(cli, run, words, expected):
    status, _, err = cli("influence", run, *QUICK, *words)
    assert status == 2 and expected in err and len(err.splitlines()) == 1


def test_no_run_is_one_line(cli, tmp_path):
    status, _, err = cli("influence", tmp_path, *QUICK)
    assert status == 2 and "found no config.json in it" in err and len(err.splitlines()) == 1


def test_a_damaged_file_is_named(run, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "config.json").write_text((run / "config.json").read_text())
    (runs,) = (read_runs([folder]),)
    assert influence_sections(runs) == []
    (folder / "influence.json").write_text('{"self_influence": 3}')
    with pytest.raises(InputError, match=r"influence\.json: expected what 'pyro-avae influence' writes"):
        influence_sections(runs)


def test_a_method_of_ones_own(cli, tmp_path, monkeypatch):
    (tmp_path / "own_influence.py").write_text(
        "from pyro.infer import Trace_ELBO\n"
        "from pyro_avae.guides import AmortizedGuide, MLPEncoder\n"
        "from pyro_avae.models import VAE, MLPDecoder\n"
        "def build(settings):\n"
        "    size = settings.latent_dim\n"
        "    model = VAE(MLPDecoder(size, settings.image_shape, hidden=settings.hidden), latent_dim=size)\n"
        "    guide = AmortizedGuide(MLPEncoder(settings.image_shape, size, hidden=settings.hidden))\n"
        "    return model, guide, Trace_ELBO()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    given = ("train", "--method", "own_influence:build", "--dataset", "color-digits", *TINY, "--no-progress")
    assert cli(*given, "--out", "run").status == 0
    assert cli("influence", "run", *QUICK).status == 0
    assert len(document(tmp_path / "run")["checkpoints"]) == 10
    sys.modules.pop("own_influence", None)


def test_a_method_without_images_is_refused(cli, run, tmp_path):
    out = tmp_path / "ss"
    given = ("train", "--method", "avae-ss", "--from", run, "--steps", "3", "--batch-size", "4", "--no-progress")
    assert cli(*given, "--device", "cpu", "--out", out).status == 0
    status, _, err = cli("influence", out, *QUICK)
    assert status == 2 and "the method avae-ss trains on no images" in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_the_experiment_in_small(tmp_path, capsys):
    out = tmp_path / "out"
    assert influence_experiment.main(["--preset", "smoke", "--out", str(out), "--no-progress"]) == 0
    (result,) = json.loads((out / "results.json").read_text())["runs"]
    assert result["cleaning_auc"]["perfect"] == pytest.approx(1 - 4 / 410)
    assert result["cleaning_auc"]["self_influence"] > 0.9  # five inverted digits among 200
    assert "own strongest proponent" in (out / "table.md").read_text() == capsys.readouterr().out
    assert (out / "influence-self.png").is_file() and (out / "influence-test.png").is_file()
