"""The SVI loop: what it computes, what it leaves alone, and that it really learns."""

import copy
import json
from itertools import chain

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.util import is_validation_enabled
from torch import nn

from pyro_avae.compilation import BaseNoise, NoiseSource
from pyro_avae.data import load_dataset
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, MLPEncoder
from pyro_avae.models import PPCA, VAE, ExtendedVAE, Gaussian, MLPDecoder, bernoulli
from pyro_avae.runs.checkpoints import load_module, newest_checkpoint
from pyro_avae.runs.settings import Settings
from pyro_avae.training import NonFiniteError, fit
from pyro_avae.training.batches import EpochOrder


def parameters(*modules):
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def test_the_gradient_is_that_of_the_loss_per_image(make_pair, images):
    """Drawn by hand from the run's streams: the same batch, the same noise, the loss divided by the batch once."""
    model, guide = make_pair()
    seen = {}
    for name, parameter in model.named_parameters():
        parameter.register_hook(lambda grad, name=name: seen.__setitem__(name, grad.clone()))
    fit(model, guide, images, steps=1, batch_size=7, seed=3)
    model, guide = make_pair()
    x = images[EpochOrder(50, 7, seed=3, device=images.device)(0)]
    noise = NoiseSource(3)
    noise.start(1)
    with BaseNoise(noise.draw):
        loss = AVAE_ELBO()(model, guide)(x) / 7
    loss.backward()
    assert seen.keys() == dict(model.named_parameters()).keys()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(seen[name], parameter.grad)


def test_training_beats_ppca_on_real_digits():
    """On held-out coloured digits B_AVAE, a lower bound of log p(x), exceeds the best linear model's log p(x).

    The baseline has the same number of latents (16) and the same observation variance (0.1); its other parameters are
    the maximum-likelihood ones (Tipping & Bishop 1999), its log evidence exact: about 399 nats an image.
    """
    data = load_dataset("color-digits")
    latent_dim, obs_variance = 16, 0.1
    train, test = (split.fixed_batch(torch.arange(len(split)))[0] for split in (data.train, data.test))
    flat = train.flatten(1).double()
    _, singular, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    scale = (singular**2 / len(flat) - obs_variance).clamp_min(0).sqrt()[:latent_dim]
    ppca = PPCA(directions[:latent_dim].T * scale, mean=flat.mean(0), obs_variance=obs_variance)
    with torch.no_grad():
        baseline = ppca.log_evidence(test.flatten(1).double()).mean()
    model = ExtendedVAE(
        MLPDecoder(latent_dim, data.shape, hidden=[128, 128]), latent_dim=latent_dim, obs_variance=obs_variance
    )
    guide = AVAEGuide(MLPEncoder(data.shape, latent_dim, hidden=[128, 128]), model)
    result = fit(model, guide, data, steps=700, lr=2e-3, log_every=50)
    with torch.no_grad():
        bound = -AVAE_ELBO(num_particles=5)(model, guide)(test) / len(test)
    assert bound > baseline + 5, (bound, baseline)
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"] or result.history[-1]["loss"] < -300
    assert result.steps == 700 and result.seconds > 0


def test_one_seed_fixes_a_run(make_pair, images):
    runs = []
    for seed in (4, 4, 5):
        torch.manual_seed(torch.seed() % 2**32)  # whatever the caller's state is
        model, guide = make_pair()
        history = fit(model, guide, images, steps=12, batch_size=8, lr=0.01, seed=seed, log_every=1).history
        runs.append((parameters(model, guide), history))
    assert torch.equal(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1]
    assert not torch.equal(runs[0][0], runs[2][0])


def test_colours_and_order_depend_on_the_seed(make_pair):
    data = load_dataset("color-digits", limit=40)

    class Recorder:
        def __init__(self):
            self.seen = []

        def __len__(self):
            return len(data.train)

        def batch(self, indices, generator):
            x, labels = data.train.batch(indices, generator)
            self.seen.append(list(zip(indices.tolist(), labels["color"].tolist(), strict=True)))
            return x, labels

    def run(seed):
        torch.manual_seed(0)
        model = VAE(MLPDecoder(2, data.shape, hidden=[4]), latent_dim=2)
        recorder = Recorder()
        fit(model, AmortizedGuide(MLPEncoder(data.shape, 2, hidden=[4])), recorder, steps=10, batch_size=8, seed=seed)
        return recorder.seen

    first = run(1)
    assert first == run(1)
    other = run(2)
    assert [i for i, _ in first[0]] != [i for i, _ in other[0]]
    # Ten batches of 8 are two epochs of 40, and an image gets its colour afresh in each.
    epochs = [dict(chain(*part)) for part in (first[:5], first[5:], other[:5])]
    assert all(sorted(colors) == list(range(40)) for colors in epochs)
    assert epochs[0] != epochs[1] and epochs[0] != epochs[2]


def test_the_callers_state_is_left_alone(make_pair, images):
    model, guide = make_pair()
    model.decoder.eval()
    state = torch.get_rng_state()
    with pyro.validation_enabled(True):
        fit(model, guide, images, steps=3, batch_size=8)
        assert is_validation_enabled()
    assert torch.equal(state, torch.get_rng_state())
    assert model.training and guide.training and not model.decoder.training
    assert len(pyro.get_param_store()) == 0


def test_the_first_step_is_validated_and_the_others_are_not(make_pair, images):
    seen = []

    class Spy(AVAE_ELBO):
        def differentiable_loss(self, model, guide, *args, **kwargs):
            seen.append(is_validation_enabled())
            return super().differentiable_loss(model, guide, *args, **kwargs)

    fit(*make_pair(), images, elbo=Spy(), steps=4, batch_size=8)
    assert seen == [True, False, False, False]


def test_history_has_the_terms_of_the_very_loss(make_pair, images):
    rows = []
    result = fit(
        *make_pair(rho="learned", learned_variance=True),
        images,
        steps=25,
        batch_size=10,
        lr=0.01,
        log_every=10,
        callbacks=[rows.append],
    )
    assert rows == result.history
    assert [row["step"] for row in rows] == [1, 10, 20, 25]
    for row in rows:
        assert row["loss"] == pytest.approx(-(row["x"] + row["z"] + row["z_aux"]), rel=1e-5)
        # N(mean, nu I) in 16 dimensions; nu moved a step on since the entropy was taken
        entropy = 8 * (1 + torch.log(torch.tensor(2 * torch.pi * row["obs_variance"])))
        assert row["x_aux_entropy"] == pytest.approx(float(entropy), abs=0.6)
        assert -1 < row["rho"] < 1
    assert rows[0]["rho"] != rows[-1]["rho"] and rows[0]["obs_variance"] != rows[-1]["obs_variance"]


def test_logging_changes_nothing(make_pair, images):
    results = []
    for log_every in (1, 7, 1000):
        model, guide = make_pair()
        fit(model, guide, images, steps=15, batch_size=8, lr=0.01, log_every=log_every)
        results.append(parameters(model, guide))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_stock_elbos_of_pyro_train(images):
    torch.manual_seed(0)
    model = VAE(MLPDecoder(3, (1, 4, 4), hidden=[8]), latent_dim=3, obs_variance=0.2)
    guide = AmortizedGuide(MLPEncoder((1, 4, 4), 3, hidden=[8]))
    history = fit(model, guide, images, elbo=TraceMeanField_ELBO(), steps=60, batch_size=25, lr=0.01).history
    assert [set(row) for row in history] == [{"step", "loss"}] * 2
    assert history[-1]["loss"] < history[0]["loss"] - 0.5


def test_an_elbo_of_ones_own_is_minimised_as_it_is(images):
    """A subclass with a penalty: the loss is its own, the terms are the bound's."""

    class Penalised(AVAE_ELBO):
        def differentiable_loss(self, model, guide, *args, **kwargs):
            penalty = sum((p**2).sum() for p in model.parameters())
            return super().differentiable_loss(model, guide, *args, **kwargs) + 50 * len(args[0]) * penalty

    torch.manual_seed(0)
    model = VAE(MLPDecoder(3, (1, 4, 4), hidden=[8]), latent_dim=3)
    guide = AmortizedGuide(MLPEncoder((1, 4, 4), 3, hidden=[8]))
    before = parameters(model).norm()
    row = fit(model, guide, images, elbo=Penalised(), steps=200, batch_size=10, lr=0.02).history[0]
    assert row["loss"] > -(row["x"] + row["z"]) + 10
    assert parameters(model).norm() < 0.2 * before


def test_shared_and_frozen_parameters(images):
    """A guide that registers the model trains its parameters once; what requires no gradient stays."""

    class Owning(AmortizedGuide):
        def __init__(self, encoder, model):
            super().__init__(encoder)
            self.target = model

    torch.manual_seed(0)
    model = VAE(MLPDecoder(3, (1, 4, 4), hidden=[8]), latent_dim=3)
    model.decoder.layers[0].weight.requires_grad_(False)
    frozen = model.decoder.layers[0].weight.clone()
    last = model.decoder.layers[-1].bias.clone()
    fit(model, Owning(MLPEncoder((1, 4, 4), 3, hidden=[8]), model), images, steps=5, lr=0.1)
    assert torch.equal(model.decoder.layers[0].weight, frozen)
    assert not torch.equal(model.decoder.layers[-1].bias, last)


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_names_its_term(make_pair, images, tmp_path, scale, spoil_view):
    """The step and the term are those of the first bad step, though it is found at a later one."""
    model, guide = make_pair()
    spoil_view(guide, call=14, factor=scale)
    with pytest.raises(NonFiniteError, match=r"^step 14: the term 'z_aux' of the loss is nan") as caught:
        fit(model, guide, images, steps=60, batch_size=8, log_every=50, checkpoint_every=10, out=tmp_path / "run")
    assert "try a smaller lr" in str(caught.value)
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("*.json"))
    assert saved == ["step-000000000010.json"]


def test_a_gradient_that_is_not_finite_is_named_and_nothing_is_saved(make_pair, images, tmp_path):
    model, guide = make_pair()

    class Spoiling(AVAE_ELBO):
        def differentiable_loss(self, model, guide, *args, **kwargs):
            loss = super().differentiable_loss(model, guide, *args, **kwargs)
            return loss + 0 * (0 * next(model.parameters())).sum().sqrt()  # a finite loss, an infinite derivative

    with pytest.raises(
        NonFiniteError, match=r"^step 1: the gradient of model\.observation\.decoder\S* is nan \(loss -?\d"
    ):
        fit(model, guide, images, elbo=Spoiling(), steps=5, checkpoint_every=1, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Refuses(AVAE_ELBO):
    """As a likelihood that finds pixels it has no use for: at the first step."""

    def differentiable_loss(self, model, guide, *args, **kwargs):
        raise InputError("refused")


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("made", [False, True])
def test_what_fails_before_a_checkpoint_leaves_no_folder_behind(make_pair, images, tmp_path, made, resume):
    """Not even in a folder that was there, and empty: the corrected call finds it as it was."""
    out = tmp_path / "run"
    if made:
        out.mkdir()
    with pytest.raises(InputError, match="refused"):
        fit(*make_pair(), images, elbo=Refuses(), steps=5, out=out, settings=Settings(), resume=resume)
    assert out.exists() == made and list(tmp_path.rglob("*")) == [out] * made
    assert fit(*make_pair(), images, steps=2, out=out).steps == 2


def test_what_fails_removes_no_file_of_others(make_pair, images, tmp_path):
    def write_and_fail(row):
        (tmp_path / "run" / "notes.txt").write_text("mine")
        raise ValueError("callback")

    with pytest.raises(ValueError, match="callback"):
        fit(*make_pair(), images, steps=5, out=tmp_path / "run", callbacks=[write_and_fail])
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_what_fails_after_a_checkpoint_keeps_it(make_pair, images, tmp_path):
    def fail(row):
        if row["step"] == 4:
            raise ValueError("callback")

    with pytest.raises(ValueError, match="callback"):
        fit(*make_pair(), images, steps=5, out=tmp_path, checkpoint_every=2, log_every=1, callbacks=[fail])
    assert {".lock", "checkpoints", "kept", "log.jsonl", "tensorboard"} == {path.name for path in tmp_path.iterdir()}
    assert fit(*make_pair(), images, steps=5, out=tmp_path, resume=True).steps == 5


def test_an_elbo_already_called_on_the_pair_is_refused(make_pair, images):
    model, guide = make_pair()
    with pytest.raises(InputError, match=r"^elbo: expected a Pyro ELBO such as AVAE_ELBO\(\), got ELBOModule"):
        fit(model, guide, images, elbo=AVAE_ELBO()(model, guide), steps=1)


def test_what_a_run_leaves_in_its_folder(make_pair, images, tmp_path):
    out = tmp_path / "a" / "run"
    history = fit(*make_pair(), images, steps=12, batch_size=8, log_every=5, checkpoint_every=4, out=out).history
    assert [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()] == history
    assert [row["step"] for row in history] == [1, 5, 10, 12]
    assert sorted(p.name for p in (out / "checkpoints").glob("*.json")) == [
        "step-000000000008.json",
        "step-000000000012.json",
    ]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(out / "tensorboard"))
    curves.Reload()
    assert {"train/loss", "train/x", "train/z", "train/z_aux"} <= set(curves.Tags()["tensors"])


def test_bernoulli_pixels_train(images):
    torch.manual_seed(0)
    model = ExtendedVAE(MLPDecoder(3, (1, 4, 4), hidden=[8], output=None), latent_dim=3, likelihood=bernoulli)
    guide = AVAEGuide(MLPEncoder((1, 4, 4), 3, hidden=[8]), model, gradient="cut")
    history = fit(model, guide, (images > 0.3).float(), steps=100, batch_size=25, lr=0.01).history
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["x_aux_entropy"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected an integer"),
        ({"steps": 2.5}, "steps: expected an integer"),
        ({"steps": 2, "lr": -1.0}, "lr: expected a finite number above 0"),
        ({"steps": 2, "batch_size": 0}, "batch_size: expected an integer"),
        ({"steps": 2, "log_every": 0}, "log_every: expected an integer"),
        ({"steps": 2, "seed": -1}, "seed: expected an integer"),
        ({"steps": 2, "device": "tpu9"}, "device: expected a device"),
        ({"steps": 2, "resume": True}, "resume: expected out"),
    ],
)
def test_arguments_out_of_range(make_pair, images, options, message):
    with pytest.raises(InputError, match=message):
        fit(*make_pair(), images, **options)


def test_pairs_that_cannot_be_trained(images):
    with pytest.raises(InputError, match="expected parameters to train"):
        fit(nn.Identity(), nn.Identity(), images, steps=1)
    with pytest.raises(InputError, match=r"guide: expected a torch\.nn\.Module, got function"):
        fit(Gaussian(learned=True), lambda x: x, images, steps=1)


def test_an_occupied_folder_is_refused(make_pair, images, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        fit(*make_pair(), images, steps=1, out=tmp_path)
    with pytest.raises(InputError, match=r"no run to go on with: it has 'notes\.txt'"):
        fit(*make_pair(), images, steps=1, out=tmp_path, resume=True)
    with pytest.raises(InputError, match="expected a folder"):
        fit(*make_pair(), images, steps=1, out=tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.cuda
def test_training_on_a_gpu(make_pair, images):
    model, guide = make_pair()
    history = fit(model, guide, images, steps=50, batch_size=10, lr=0.01, device="cuda").history
    assert next(model.parameters()).is_cuda and history[-1]["loss"] < history[0]["loss"]


@pytest.mark.parametrize("compile", [False, True])
def test_float64_is_an_option_and_its_run_is_read_in_float32(make_pair, images, tmp_path, compile):
    """The first step's loss is that of the pair turned double by hand, to rounding of float64."""
    pair = make_pair()
    by_hand = copy.deepcopy(pair)
    result = fit(*pair, images, steps=3, batch_size=8, log_every=1, precision="64-true", compile=compile, out=tmp_path)
    assert all(tensor.dtype == torch.float64 for module in pair for tensor in module.parameters())
    other = fit(*(module.double() for module in by_hand), images.double(), steps=3, batch_size=8, log_every=1)
    for row, same in zip(result.history, other.history, strict=True):
        assert row["loss"] == pytest.approx(same["loss"], rel=1e-12)
    found = newest_checkpoint(tmp_path / "checkpoints")
    name = "observation.decoder.layers.0.weight"
    assert found.tensors[f"model.{name}"].dtype == torch.float64
    fresh = make_pair(seed=5)
    load_module(fresh[0], found.tensors, "model")
    assert torch.equal(fresh[0].get_parameter(name), pair[0].get_parameter(name).float())
