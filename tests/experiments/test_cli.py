"""The command line: help, errors of one line, own methods, evaluation."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import pyro_avae
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.experiments.commands import COMMANDS

TINY = ["--hidden", "16", "--latent-dim", "4", "--batch-size", "16", "--limit", "60", "--device", "cpu"]
TRAINING = ["--steps", "12", "--log-every", "5", "--checkpoint-every", "6", "--no-progress"]
RUN = ["train", *TINY, *TRAINING]
# Without the settings that a method of one's own may not read.
OWN_RUN = ["train", *TINY[4:], *TRAINING]

available = [name for name, c in COMMANDS.items() if importlib.util.find_spec(f"pyro_avae.experiments.{c.module}")]

relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def test_help_and_version(cli):
    status, out, err = cli("--help")
    assert status == 0 and err == "" and all(name in out for name in COMMANDS)
    status, out, _ = cli("--version")
    assert status == 0 and out.startswith("pyro-avae ")


@pytest.mark.parametrize("name", available)
def test_every_command_has_help_seed_and_device(cli, name):
    status, out, err = cli(name, "--help")
    assert status == 0 and err == ""
    assert "--seed" in out and "--device" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: COMMAND"),
        (
            ["tran"],
            "command: expected one of quickstart, verify, train, evaluate, influence, ood, report, reproduce, got",
        ),
        (["--nonsense"], "required: COMMAND"),
        (["train"], "required: --out"),
        (["train", "--out", "r", "--stepz", "3"], "unrecognized arguments: --stepz"),
        (["train", "--out", "r", "--step", "3"], "unrecognized arguments: --step"),
        (["train", "--out", "r", "--steps"], "argument --steps: expected one argument"),
        (["train", "--out", "r", "--steps", "3", "x\ny"], "unrecognized arguments: x"),
        (
            ["train", "--out", "r", "--rho", "1"],
            "argument --rho: expected a number in (-1, 1) or 'learned' or 'learned-per-dimension' or 'natural', got",
        ),
        (
            ["train", "--out", "r", "--rho", "best"],
            "--rho: expected a number in (-1, 1) or 'learned' or 'learned-per-dimension' or 'natural', got 'best'",
        ),
        (
            ["train", "--out", "r", "--method", "wae"],
            "method: expected one of vae, iwae, beta-vae, noise-vae, cr-vae, avae,",
        ),
        (["train", "--out", "r", "--method", "no_such:build"], "importing no_such failed: ModuleNotFoundError"),
        (["train", "--out", "r", "--method", ":"], "method: expected module:function"),
        (["train", "--out", "r", "--dataset", "imagenet"], "dataset: expected one of color-digits"),
        (["train", "--out", "r", "--dataset", "mnist", "--data-root", "nowhere"], "mnist: expected the files"),
        (["train", "--out", "r", "--likelihood", "laplace"], "likelihood: expected one of gaussian"),
        (["train", "--out", "r", "--likelihood", "bernoulli", "--gradient", "through_z"], "gradient='through_z'"),
        (["train", "--out", "r", "--device", "abacus"], "device: expected a device of this machine"),
        (["train", "--out", "r", "--method", "vae", "--beta", "3"], "beta: expected 1"),
        (["train", "--out", "r", "--hidden", "9" * 5, "9" * 5, "9" * 6], "do not fit into memory"),
        (["train", "--out", "r", "--steps", "5", "--kl-warmup", "6"], "--kl-warmup: expected at most the 5 steps"),
        (["train", "--out", "r", "--method", "os:getcwd"], "method: os:getcwd: expected a function of the settings"),
        (["evaluate"], "required: RUN"),
        (["evaluate", "nothing"], "found no config.json in it"),
        (["evaluate", "nothing", "--epsilons", "0", "1.5"], "--epsilons: expected L∞ radii in [0, 1]"),
        (["verify", "--device", "cuda"], "--device: expected cpu"),
    ],
)
def test_bad_input_is_one_line(refused, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*argv)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guide", "no"], "--guide: expected one of "),
        (["--precision", "8"], "--precision: expected one of "),
        (["--dataset", "imagenet"], "--dataset: expected one of "),
        (["--method", ":"], "--method: expected module:function"),
        (["--batch-size", "1000000000", "--hidden", "99999", "99999", "999999"], "--hidden, --latent-dim: networks of"),
        (["--method", "vae", "--beta", "3"], "--beta: expected 1"),
        (["--dataset", "mnist", "--data-root", "nowhere"], "mnist: expected the files"),
    ],
)
def test_an_option_is_called_what_was_typed(refused, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert refused("train", "--out", "r", *words).startswith(message)


@pytest.mark.parametrize("method", ["vae", "beta-vae"])
@pytest.mark.parametrize("words", [["--rho", "0.975"], ["--view", "mean"], ["--gradient", "cut"], ["--num-views", "1"]])
def test_a_setting_that_the_method_has_no_use_for_is_refused(refused, tmp_path, method, words):
    """Even with the value that is the default: who gives it expects it to do something."""
    message = refused(*RUN, "--out", tmp_path / "run", "--method", method, *words)
    assert message == f"{words[0]}: the method {method} has no use for it; leave it out"
    assert not (tmp_path / "run").exists()


bad_integer = st.one_of(
    st.integers(max_value=0).map(str),
    st.floats().map(str),
    st.sampled_from(["", " ", "1e3", "0x10", "nan", "None", "9" * 5000, "1\n2", "\x00", "\udcff"]),
    st.text().filter(lambda t: not t.strip().replace("_", "").isdecimal()),
)
bad_positive = st.one_of(
    st.floats(max_value=0, allow_nan=False).map(str),
    st.sampled_from(["nan", "inf", "-inf", "", "1,5", "1e999", "0x1", "one", "\n"]),
)
bad_rho = st.one_of(
    st.floats(min_value=1).map(str),
    st.floats(max_value=-1).map(str),
    st.sampled_from(["nan", "Learned", "0.9 0.9", ""]),
)
BAD = {
    **dict.fromkeys(
        ["steps", "batch-size", "latent-dim", "num-views", "limit", "checkpoint-every", "log-every", "hidden"],
        bad_integer,
    ),
    **dict.fromkeys(["lr", "obs-variance", "beta"], bad_positive),
    "rho": bad_rho,
    "seed": bad_integer.filter(lambda t: t != "0"),
    **dict.fromkeys(["method", "likelihood", "view", "gradient", "architecture", "dataset"], st.just("")),
}


@relaxed
@given(st.data())
def test_no_value_out_of_range_gets_through(refused, tmp_path, data):
    """As ``--option value`` and ``--option=value``: status 2, one line that names the option, and no folder made."""
    option = data.draw(st.sampled_from(sorted(BAD)))
    value = data.draw(BAD[option].filter(lambda text: not text.startswith("--")))
    words = [f"--{option}", value] if data.draw(st.booleans()) else [f"--{option}={value}"]
    message = refused("train", "--out", tmp_path / "run", *words)
    assert option in message and len(message) < 700
    assert not (tmp_path / "run").exists()


@relaxed
@given(st.lists(st.text(max_size=12).filter(lambda text: text not in ("-h", "--help")), max_size=5))
def test_nothing_that_is_typed_makes_a_traceback(refused, tmp_path, words):
    refused("train", "--out", tmp_path / "run", *words, "--steps", "0")
    assert not (tmp_path / "run").exists()


@relaxed
@given(st.text(max_size=12).filter(lambda text: text not in ("--help", "--version", "-h", *COMMANDS)))
def test_no_other_command(refused, word):
    refused(word)


def test_train_evaluate_and_load(cli, tmp_path):
    run = tmp_path / "run"
    status, out, err = cli(*RUN, "--out", run, "--seed", "3", "--rho", "-0.5")
    assert (status, err) == (0, "") and out.startswith("avae on color-digits: 12 steps")
    config = json.loads((run / "config.json").read_text())
    assert (config["rho"], config["seed"], config["hidden"], config["limit"]) == (-0.5, 3, [16], 60)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 5, 10, 12]
    assert rows[-1]["loss"] == pytest.approx(-sum(rows[-1][site] for site in ("x", "z", "z_aux")), rel=1e-5)

    status, out, err = cli(
        "evaluate", run, "--epsilons", "0", "0.1", "--limit", "20", "--steps", "2", "--device", "cpu"
    )
    assert (status, err) == (0, "") and "digit" in out and "color" in out and "0.1" in out
    found = json.loads((run / "evaluation.json").read_text())
    assert (found["method"], found["dataset"], found["seed"], found["steps"]) == ("avae", "color-digits", 3, 12)
    assert found["tasks"].keys() == {"digit", "color"}
    for task in found["tasks"].values():
        assert (
            task["accuracy"].keys() == {"0.0", "0.1"} and 0 <= task["accuracy"]["0.1"] <= task["accuracy"]["0.0"] <= 1
        )
    assert found["num_train_images"] == 1437 and found["num_test_images"] == 20

    model, guide, loaded = pyro_avae.load(run)
    assert loaded.rho == -0.5 and guide.encode(torch.zeros(2, 3, 28, 28))[0].shape == (2, 4)
    assert model.sample(2).shape == (2, 3, 28, 28)


def test_one_seed_is_one_run_and_another_is_another(cli, tmp_path):
    logs = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        torch.rand(7)
        assert cli(*RUN, "--out", tmp_path / name, "--seed", seed).status == 0
        logs.append((tmp_path / name / "log.jsonl").read_text())
    assert logs[0] == logs[1] != logs[2]


def test_a_folder_with_files_needs_resume(cli, refused, tmp_path):
    run = tmp_path / "run"
    assert cli(*RUN, "--out", run).status == 0
    before = (run / "log.jsonl").read_text()
    assert "expected a new or empty folder" in refused(*RUN, "--out", run)
    assert (run / "log.jsonl").read_text() == before


def test_resuming_a_finished_run_is_success(cli, tmp_path):
    run = tmp_path / "run"
    assert cli(*RUN, "--out", run).status == 0
    for argv in (RUN, ["train"]):
        status, out, err = cli(*argv, "--out", run, "--resume")
        assert (status, err) == (0, "") and "already finished, 12 steps" in out


def test_resuming_with_other_settings_names_the_setting(cli, refused, tmp_path):
    run = tmp_path / "run"
    assert cli(*RUN, "--out", run).status == 0
    for option, value in (
        ("--rho", "0.1"),
        ("--steps", "13"),
        ("--method", "vae"),
        ("--hidden", "17"),
        ("--dataset", "mnist"),
        ("--seed", "9"),
        ("--gradient", "cut"),
    ):
        message = refused(*RUN, option, value, "--out", run, "--resume")
        assert message.startswith(f"{option}: the run in ") and value in message


def test_resuming_without_a_checkpoint_starts_anew_and_says_so(cli, tmp_path, caplog):
    for run in (tmp_path / "new", tmp_path / "lost"):
        status, _, _ = cli(*RUN, "--out", run, "--resume")
        assert status == 0 and "no intact checkpoint; starting at step 0" in caplog.text
        caplog.clear()
        (tmp_path / "lost" / "checkpoints").mkdir(parents=True, exist_ok=True)


def test_a_refused_run_is_in_nobodys_way(cli, refused, tmp_path):
    run, wrong = tmp_path / "run", ["--likelihood", "bernoulli", "--gradient", "through_z"]
    for resume in ([], ["--resume"]):
        assert "gradient='through_z'" in refused(*RUN, *wrong, "--out", run, *resume)
        assert not run.exists()
    assert cli(*RUN, "--out", run).status == 0


def test_settings_of_a_run_without_a_checkpoint_do_not_bind(cli, tmp_path, caplog):
    run = tmp_path / "run"
    assert cli(*RUN, "--out", run, "--rho", "0.3").status == 0
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    status, out, _ = cli("train", "--out", run, "--resume", "--method", "vae", "--steps", "7", "--device", "cpu")
    assert status == 0 and out.startswith("vae on color-digits: 7 steps")
    assert "other settings than the run there (--method)" in caplog.text
    config = json.loads((run / "config.json").read_text())
    assert (config["method"], config["steps"], config["hidden"]) == ("vae", 7, [16])
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 5, 7]


def test_resuming_what_is_no_run(refused, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    assert "no run to go on with: it has 'thesis.tex'" in refused("train", "--out", tmp_path, "--resume", *TINY)
    (tmp_path / "config.json").write_text("{}}")
    assert "config.json: expected JSON" in refused("train", "--out", tmp_path, "--resume", *TINY)


OWN = """
import torch
from pyro_avae import AVAE_ELBO
from pyro_avae.models import VAE, MLPDecoder
from pyro_avae.guides import AmortizedGuide, MLPEncoder

def build(settings):
    decoder = MLPDecoder(5, settings.image_shape, hidden=[6])
    return (VAE(decoder, latent_dim=5, obs_variance=settings.obs_variance),
            AmortizedGuide(MLPEncoder(settings.image_shape, 5, hidden=[6])), AVAE_ELBO())

def broken(settings):
    return 3

def failing(settings):
    raise KeyError("no such thing")
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A folder with a user's method, as the current one."""
    (tmp_path / "my_own_method.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    sys.modules.pop("my_own_method", None)


def test_a_method_of_ones_own(cli, own_module):
    status, _, err = cli(*OWN_RUN, "--out", "run", "--method", "my_own_method:build", "--obs-variance", "0.1")
    assert (status, err) == (0, "")
    model, _, config = pyro_avae.load("run")
    assert model.latent_dim == 5 and config.builder == config.method == "my_own_method:build"
    assert cli("evaluate", "run", "--epsilons", "0", "--limit", "20", "--device", "cpu").status == 0
    assert json.loads((own_module / "run" / "evaluation.json").read_text())["method"] == "my_own_method:build"


def test_a_method_of_ones_own_is_given_no_setting_that_it_does_not_read(refused, own_module):
    message = refused(*OWN_RUN, "--out", "run", "--method", "my_own_method:build", "--rho", "0.3")
    assert "--rho: my_own_method:build did not read settings.rho; leave it out, or have it read" in message
    assert not (own_module / "run").exists()


def test_compiling_is_an_option_and_stays_with_the_run(cli, refused, tmp_path, monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)  # inductor has tests of its own
    status, out, _ = cli(*RUN, "--out", tmp_path / "run", "--compile")
    assert status == 0 and re.search(r" ms each \(compiled in \d+\.\d s\), loss ", out)
    assert "compiled" not in cli(*RUN, "--out", tmp_path / "eager").out
    assert "compiled" not in cli(*RUN, "--out", tmp_path / "other", "--no-compile").out
    # As if it had been stopped at step 6.
    for file in (tmp_path / "run" / "checkpoints").glob("*12.*"):
        file.unlink()
    message = refused("train", "--out", tmp_path / "run", "--resume", "--no-compile", "--device", "cpu")
    assert "--compile: the run in" in message and "has True, got False; leave it out" in message
    assert "(compiled in " in cli("train", "--out", tmp_path / "run", "--resume", "--device", "cpu").out


def test_a_loss_that_grew_is_told(cli, tmp_path, caplog):
    assert cli(*RUN, "--out", tmp_path / "good").status == 0
    assert "the loss" not in caplog.text
    assert cli(*RUN, "--out", tmp_path / "run", "--lr", "1e6").status == 0
    assert "--lr: the loss went up, from" in caplog.text


def test_a_method_of_ones_own_is_looked_for_where_it_was(cli, refused, own_module, monkeypatch):
    assert cli(*OWN_RUN, "--out", "run", "--method", "my_own_method:build").status == 0
    (own_module / "elsewhere").mkdir()
    monkeypatch.chdir(own_module / "elsewhere")
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(own_module)])
    sys.modules.pop("my_own_method")
    message = refused("evaluate", own_module / "run", "--device", "cpu")
    assert message.endswith("; run from the folder that holds my_own_method.py, or put it on PYTHONPATH")


def test_images_without_labels_have_a_table_too(cli, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for place in range(30):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{place}.png")
    run = tmp_path / "run"
    assert cli(*RUN, "--dataset", f"folder:{tmp_path / 'images'}", "--out", run).status == 0
    status, out, err = cli("evaluate", run, "--device", "cpu", "--limit", "2")
    assert (status, err) == (0, "")
    assert "│ no labels: no probe, no attack " in out.replace("┃", "│")
    assert "│ bound, nats per image: " in out and "│ log p(x) " in out


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("my_own_method:broken", "my_own_method:broken: expected it to return (model, guide, elbo)"),
        ("my_own_method:missing", "expected a function 'missing' in the module my_own_method"),
    ],
)
def test_a_method_of_ones_own_that_is_none(refused, own_module, method, message):
    assert message in refused(*OWN_RUN, "--out", "run", "--method", method)
    assert not (own_module / "run").exists()


def test_a_defect_in_ones_own_method_keeps_its_traceback(cli, own_module):
    with pytest.raises(KeyError, match="no such thing"):
        cli(*OWN_RUN, "--out", "run", "--method", "my_own_method:failing")


def test_a_module_that_does_not_import_says_where(refused, own_module):
    (own_module / "my_broken_module.py").write_text("x = 1\ny = undefined\n")
    message = refused(*OWN_RUN, "--out", "run", "--method", "my_broken_module:build")
    assert "NameError: name 'undefined' is not defined" in message and "my_broken_module.py:2" in message


def test_a_loss_that_is_not_finite_is_one_line(cli, tmp_path):
    status, _, err = cli(*RUN, "--out", tmp_path / "run", "--lr", "1e20")
    assert status == 2 and len(err.splitlines()) == 1
    # Which of the two depends on the order in which the machine's matrix products add up.
    assert re.search(r"step 2: the value of site 'z' of the guide is (nan|-?inf) \(loss nan, .*try a smaller lr", err)


def test_real_mnist(cli, data_root, tmp_path):
    run = tmp_path / "run"
    argv = ["--dataset", "color-mnist", "--data-root", data_root, "--out", run, "--method", "vae"]
    assert cli(*RUN, *argv).status == 0
    config = json.loads((run / "config.json").read_text())
    assert config["data_root"] == str(data_root) and config["lr"] == 1e-4 and config["image_shape"] == [3, 28, 28]


def test_the_reader_of_a_pipe_may_leave(process):
    """``pyro-avae --help | true``: no traceback, the status that a shell's own tools have then."""
    running = process("--help")
    running.stdout.close()
    assert running.wait(timeout=120) in (0, 141)
    assert "Traceback" not in running.stderr.read() and "Exception" not in running.stderr.read()
    running.stderr.close()


def test_as_a_process(process):
    running = process("train", "--out", "run", "--steps", "none")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 2 and out == ""
    assert err.startswith("pyro-avae: error: argument --steps: expected an integer") and len(err.splitlines()) == 1


def test_self_supervised_post_training_starts_from_a_run_and_needs_no_data(cli, refused, tmp_path, monkeypatch):
    """The data set is gone, and the decoder is bit for bit that of the run."""
    vae = tmp_path / "vae"
    assert cli(*RUN, "--method", "vae", "--out", vae).status == 0
    monkeypatch.setattr("pyro_avae.data.registry.DATASETS", {})
    ss = tmp_path / "ss"
    words = ["--method", "avae-ss", "--from", vae, "--steps", "5", "--lr", "0.01", "--no-progress"]
    assert cli("train", *words, "--out", ss).status == 0
    (trained, guide, settings), (original, before, _) = pyro_avae.load(ss), pyro_avae.load(vae)
    assert settings.latent_dim == 4 and settings.dataset == "color-digits" and settings.start_from == str(vae)
    for name, tensor in original.observation.state_dict().items():
        assert torch.equal(trained.observation.state_dict()[name], tensor)
    moved = [not torch.equal(a, b) for a, b in zip(guide.parameters(), before.parameters(), strict=True)]
    assert all(moved)
    assert "steps" in cli("train", "--out", ss, "--resume").out  # already finished, the first run no longer needed
    assert refused("train", *words[:2], "--steps", "5", "--out", tmp_path / "x") == (
        "--from: the method avae-ss trains on no data; give the trained run it starts from"
    )
    assert "expected the folder of a run" in refused("train", *words[:2], "--from", tmp_path, "--out", tmp_path / "x")
    other = refused("train", *words, "--latent-dim", "3", "--out", tmp_path / "x")
    assert other.startswith("--from: ") and "the checkpoint has" in other
    assert not (tmp_path / "x").exists()


def test_any_method_may_start_from_a_run(cli, tmp_path):
    vae, avae = tmp_path / "vae", tmp_path / "avae"
    assert cli(*RUN, "--method", "vae", "--out", vae).status == 0
    words = ["--dataset", "color-digits", "--limit", "40", "--steps", "1", "--lr", "1e-9", "--no-progress"]
    assert cli("train", *words, "--from", vae, "--method", "avae", "--out", avae).status == 0
    (model, _, _), (started, _, _) = pyro_avae.load(avae), pyro_avae.load(vae)
    for name, tensor in started.observation.state_dict().items():
        torch.testing.assert_close(model.observation.state_dict()[name], tensor, rtol=0, atol=1e-7)


def test_a_lossy_model_with_everything_else_trains_and_is_evaluated(cli, tmp_path):
    """Images of a bright and a dark half, 8x8 grey: a folder, so that a pixel has few before it."""
    run, images = tmp_path / "run", tmp_path / "images"
    for place in range(24):
        shade = np.random.default_rng(place).integers(0, 256, (8, 8), dtype=np.uint8)
        folder = images / ("train" if place < 16 else "test") / "one"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shade).convert("RGB").save(folder / f"{place}.png")
    words = ["--method", "avae", "--guide", "hamiltonian", "--leapfrog-steps", "2", "--jacobian-l1", "0.1"]
    words += ["--model", "lossy", "--window", "3", "1", "--prior", "flow", "--flow-hidden", "8", "--hidden", "8"]
    words += ["--latent-dim", "3", "--batch-size", "4", "--dataset", f"folder:{images}", "--device", "cpu"]
    done = cli("train", *words, "--steps", "3", "--no-progress", "--out", run)
    assert done.status == 0, done.err
    config = json.loads((run / "config.json").read_text())
    assert config["likelihood"] == "logistic-mixture" and config["window"] == [3, 1]
    done = cli("evaluate", run, "--limit", "8", "--steps", "1", "--restarts", "1", "--no-progress")
    assert done.status == 0, done.err
    found = json.loads((run / "evaluation.json").read_text())
    assert found["log_likelihood"] < 0 and np.isfinite(found["mse"])
