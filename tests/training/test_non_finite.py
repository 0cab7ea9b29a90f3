"""Anomalies, planted: each ends training at its step, before parameters change, and is named."""

import math

import pytest
import torch
from torch import nn

from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.program import Program
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.training import NonFiniteError, fit, fit_seeds
from pyro_avae.training.non_finite import first_site
from pyro_avae.training.progress import Silent

SITES = {
    "encoder": "the value of site 'z' of the guide is nan",
    "decoder": "the value of site 'x_aux' of the guide is nan",
}


def _plant(module: nn.Module, value: float) -> None:
    with torch.no_grad():
        next(module.parameters()).view(-1)[0] = value


@pytest.mark.parametrize("network", SITES)
@pytest.mark.parametrize("compiled", [False, True])
def test_the_first_site_of_the_step_is_named(make_pair, images, monkeypatch, network, compiled):
    """NaN in the encoder's weights spoils every term; what is named is the site that it reached first."""
    if compiled:
        monkeypatch.setattr("pyro_avae.compilation.trace.TracedProgram.compile", lambda traced: None)
    model, guide = make_pair()
    planted = {"encoder": guide.encoder, "decoder": model.decoder}[network]

    def spoil(row):
        if row["step"] == 6:
            _plant(planted, math.nan)

    with pytest.raises(NonFiniteError) as caught:
        fit(model, guide, images, steps=20, batch_size=8, log_every=1, callbacks=[spoil], compile=compiled)
    assert str(caught.value).startswith(f"step 7: {SITES[network]} (loss nan, ")


def test_a_density_that_is_not_finite_is_named_where_values_are(make_pair, images):
    model, guide = make_pair()
    program = Program(AVAE_ELBO()(model, guide))
    assert first_site(program, NoiseSource(0), 1, images[:4]) is None
    far = images[:4].clone()
    far[0] = 1e30  # its squared distance from any mean is not a float32
    found = first_site(program, NoiseSource(0), 1, far)
    assert found is not None and found.startswith("the ")


def test_a_second_look_that_fails_leaves_what_the_first_one_saw(make_pair, images, spoil_view):
    model, guide = make_pair()
    spoil_view(guide, call=5, factor=math.nan, fails=True)
    with pytest.raises(NonFiniteError, match=r"^step 5: the term 'z_aux' of the loss is nan"):
        fit(model, guide, images, steps=20, batch_size=8)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_step_of_a_bad_gradient_changes_no_parameter(make_pair, images, value):
    """The gradient is planted by a hook, with a loss that stays finite; the parameters are those of the step before."""
    model, guide = make_pair()
    watched = next(guide.encoder.parameters())
    calls: list[torch.Tensor] = []

    def spoil(gradient):
        calls.append(watched.detach().clone())
        return torch.full_like(gradient, value) if len(calls) == 5 else gradient

    handle = watched.register_hook(spoil)
    with pytest.raises(NonFiniteError, match=rf"^step 5: the gradient of guide\.encoder\S* is {value} \(loss \d"):
        fit(model, guide, images, steps=20, batch_size=8, log_every=50)
    handle.remove()
    assert len(calls) == 5 and torch.equal(watched, calls[-1]) and not torch.equal(calls[-1], calls[-2])


@pytest.mark.parametrize("compiled", [False, True])
def test_of_several_seeds_the_bad_one_ends_training(make_pair, images, monkeypatch, compiled):
    monkeypatch.setattr("pyro_avae.compilation.trace.TracedProgram.compile", lambda traced: None)
    pairs = [make_pair(seed=seed) for seed in (0, 1)]

    class Spoiling(Silent):
        def advance(self, done):
            if done == 3:
                _plant(pairs[1][1].encoder, math.nan)

    with pytest.raises(NonFiniteError, match=r"^step 4: the term '\w+' of the loss is nan"):
        fit_seeds(pairs, images, seeds=[0, 1], steps=9, batch_size=8, compile=compiled, progress=Spoiling())
    assert all(bool(parameter.isfinite().all()) for module in pairs[0] for parameter in module.parameters())


def test_the_last_good_checkpoint_is_kept_and_training_goes_on_from_it(make_pair, images, tmp_path):
    model, guide = make_pair()
    spoiled = [True]

    def spoil(row):
        if row["step"] == 25 and spoiled[0]:
            _plant(guide.encoder, math.nan)

    options = {"steps": 30, "batch_size": 8, "log_every": 5, "checkpoint_every": 10, "out": tmp_path / "run"}
    with pytest.raises(NonFiniteError, match=r"^step 26: "):
        fit(model, guide, images, **options, callbacks=[spoil])
    spoiled[0] = False
    assert fit(*make_pair(), images, **options, resume=True).steps == 30


@pytest.mark.parametrize("network", SITES)
def test_where_nobody_waits_for_the_device_the_note_is_read_when_it_arrives(make_pair, images, monkeypatch, network):
    """The way of a GPU: the whole step first, its update included, then a look at what has arrived of the notes."""
    monkeypatch.setattr("pyro_avae.training.step._is_waited_for", lambda device: False)
    model, guide = make_pair()

    def spoil(row):
        if row["step"] == 6:
            _plant({"encoder": guide.encoder, "decoder": model.decoder}[network], math.nan)

    with pytest.raises(NonFiniteError, match=r"^step 7: the term '\w+' of the loss is nan \(loss nan, "):
        fit(model, guide, images, steps=20, batch_size=8, log_every=1, callbacks=[spoil])


@pytest.mark.cuda
def test_on_cuda_it_ends_soon_and_names_the_step(make_pair, images):
    model, guide = make_pair()
    ended = []

    def spoil(row):
        ended.append(row["step"])
        if row["step"] == 6:
            _plant(guide.encoder, math.nan)

    with pytest.raises(NonFiniteError, match=r"^step 7: the term '\w+' of the loss is nan"):
        fit(model, guide, images, steps=10_000, batch_size=8, log_every=6, callbacks=[spoil], device="cuda")
    assert ended[-1] < 100
