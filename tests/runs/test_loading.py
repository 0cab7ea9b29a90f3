"""``pyro_avae.load``: the pair that was trained, or one line that says why not."""

import json

import pytest
import torch

import pyro_avae
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import build
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.runs.loading import load_run
from pyro_avae.runs.settings import Settings
from pyro_avae.training import fit

SETTINGS = Settings(
    method="avae",
    steps=12,
    lr=0.01,
    rho="learned",
    latent_dim=3,
    hidden=(8,),
    image_shape=(1, 4, 4),
    builder="pyro_avae.experiments.methods:build",
)


@pytest.fixture
def run(tmp_path, images):
    """A finished run, and the pair that it trained."""
    model, guide, elbo = build(SETTINGS)
    fit(model, guide, images, elbo=elbo, steps=12, lr=0.01, out=tmp_path / "run", settings=SETTINGS)
    return tmp_path / "run", model, guide


def test_the_loaded_pair_is_the_trained_one(run, images):
    folder, model, guide = run
    state = torch.get_rng_state()
    loaded_model, loaded_guide, config = pyro_avae.load(folder)
    assert torch.equal(state, torch.get_rng_state())
    assert config == SETTINGS
    assert not loaded_model.training and not loaded_guide.training
    assert loaded_guide.model is loaded_model
    assert torch.equal(guide.encode(images)[0], loaded_guide.encode(images)[0])
    assert torch.equal(model.coupling.rho, loaded_model.coupling.rho) and float(model.coupling.rho.detach()) != 0.9
    losses = []
    for pair in ((model, guide), (loaded_model, loaded_guide)):
        torch.manual_seed(3)
        losses.append(AVAE_ELBO().loss(*pair, images))
    assert losses[0] == losses[1]


def test_what_else_is_known(run):
    loaded = load_run(run[0])
    assert loaded.step == 12 and loaded.seconds > 0


def test_a_pair_goes_on_training_after_loading(run, images):
    model, guide, _ = pyro_avae.load(run[0])
    before = model.coupling.rho.detach().clone()
    fit(model, guide, images, steps=3, lr=0.1)
    assert float(model.coupling.rho.detach()) != float(before)
    assert not model.training


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builder": None}, "builder: expected module:function, got none"),
        ({"builder": "no_such_module:build"}, "builder: expected the library's own or one that you have trained with"),
        ({"builder": "os:getcwd now"}, "expected module:function"),
        ({"hidden": [9]}, "the checkpoint has torch.float32"),
        ({"hidden": [10**6, 10**6]}, "do not fit into memory"),
        ({"image_shape": [10**6, 10**6, 10**6]}, "do not fit into memory"),
        ({"rho": 0.5}, "the model has none; the checkpoint is of another model"),
        ({"stepz": 3}, "'stepz': no such setting"),
        ({"lr": "fast"}, "lr: expected a finite number"),
    ],
)
def test_a_run_whose_settings_do_not_fit(run, change, message):
    config = run[0] / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    with pytest.raises(InputError) as caught:
        pyro_avae.load(run[0])
    assert message in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', "\x00", "[" * 100_000, "NaN", '{"lr": NaN}'])
def test_a_damaged_config(run, content):
    (run[0] / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json: ") as caught:
        pyro_avae.load(run[0])
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_run(tmp_path, run):
    with pytest.raises(InputError, match=r"found no config\.json in it"):
        pyro_avae.load(tmp_path / "nothing")
    for path in (run[0] / "checkpoints").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no intact checkpoint"):
        pyro_avae.load(run[0])
    with pytest.raises(InputError, match="device: expected a device"):
        pyro_avae.load(run[0], device="nowhere")


def test_a_damaged_newest_checkpoint_falls_back(tmp_path, images, caplog):
    model, guide, elbo = build(SETTINGS)
    out = tmp_path / "two"
    fit(model, guide, images, elbo=elbo, steps=12, lr=0.01, out=out, settings=SETTINGS, checkpoint_every=5)
    sorted((out / "checkpoints").glob("*.safetensors"))[-1].write_bytes(b"damaged")
    assert load_run(out).step == 10 == newest_checkpoint(out / "checkpoints").step
    assert "step-000000000012.safetensors: damaged checkpoint" in caplog.text
