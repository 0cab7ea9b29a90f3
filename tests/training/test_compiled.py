"""Compiled training: the numbers of eager training, exact resume, and one decision for the whole run."""

import logging
import math

import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.training import NonFiniteError, fit, plan, trainer

OPTIONS = {"steps": 20, "batch_size": 8, "lr": 0.01, "log_every": 6, "checkpoint_every": 7, "seed": 4}


@pytest.fixture
def traced_only(monkeypatch):
    """Run the traced graph itself: all but inductor, in a hundredth of the time."""
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)


def assert_close(found, expected):
    # Rounding of float32 carried through 20 steps of Adam.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kl_warmup", [0, 10])
@pytest.mark.usefixtures("traced_only")
def test_traced_training_is_eager_training(make_pair, images, kl_warmup):
    found = []
    for compiled in (True, False):
        pair = make_pair(rho="learned", learned_variance=True)
        result = fit(*pair, images, **OPTIONS, kl_warmup=kl_warmup, compile=compiled)
        found.append((result, {**pair[0].state_dict(), **pair[1].state_dict()}))
    (one, state), (other, expected) = found
    assert_close(state, expected)
    assert [row.keys() for row in one.history] == [row.keys() for row in other.history]
    for row, same in zip(one.history, other.history, strict=True):
        assert row == pytest.approx(same, rel=1e-4, abs=1e-4)
    assert one.compile_seconds > 0 == other.compile_seconds


def test_compiled_training_is_eager_training_and_resumes_exactly(make_pair, images, tmp_path):
    states = []
    for name, compiled in (("eager", False), ("compiled", True)):
        pair = make_pair()
        fit(*pair, images, **OPTIONS, compile=compiled, out=tmp_path / name)
        states.append(pair[1].state_dict())
    assert_close(states[1], states[0])

    class Died(BaseException):
        pass

    def die(row):
        if row["step"] == 12:
            raise Died

    with pytest.raises(Died):
        fit(*make_pair(), images, **OPTIONS, compile=True, out=tmp_path / "resumed", callbacks=[die])
    result = fit(*make_pair(seed=7), images, **OPTIONS, out=tmp_path / "resumed", resume=True)
    assert result.compile_seconds > 0
    one, other = (newest_checkpoint(tmp_path / name / "checkpoints") for name in ("compiled", "resumed"))
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    with pytest.raises(InputError, match="compile: the run to go on with has True, got False"):
        fit(*make_pair(), images, **OPTIONS, out=tmp_path / "resumed", resume=True, compile=False)


@pytest.mark.usefixtures("traced_only")
def test_long_training_is_compiled_by_default_and_short_training_is_not(make_pair, images, monkeypatch):
    monkeypatch.setattr(plan, "WORTH_COMPILING", 20)
    assert fit(*make_pair(), images, **OPTIONS).compile_seconds > 0
    assert fit(*make_pair(), images, **{**OPTIONS, "steps": 19}).compile_seconds == 0


def test_without_a_compiler_training_is_eager_and_says_so(make_pair, images, monkeypatch, caplog):
    monkeypatch.setattr(trainer, "compiler_missing", lambda device: "no C++ compiler found")
    with caplog.at_level(logging.WARNING):
        assert fit(*make_pair(), images, **OPTIONS, compile=True).compile_seconds == 0
    assert caplog.messages == ["no C++ compiler found; steps are not compiled"]


@pytest.mark.usefixtures("traced_only")
def test_what_pyro_would_say_of_a_program_is_said(make_pair, images):
    model, guide = make_pair()

    class Wrong(nn.Module):
        def forward(self, x):
            return guide(x[:, :, :2])

    with pytest.raises((InputError, RuntimeError, ValueError)):
        fit(model, Wrong(), images, **OPTIONS, compile=True)


@pytest.mark.usefixtures("traced_only")
def test_a_loss_that_is_not_finite_is_found_at_its_step(make_pair, images):
    weight = torch.tensor(1.0)

    def spoil(row):
        weight.fill_(math.nan)

    with pytest.raises(NonFiniteError, match=r"^step 7: the term '(z|z_aux)' of the loss is nan"):
        fit(*make_pair(), images, **OPTIONS, elbo=AVAE_ELBO(kl_weight=weight), compile=True, callbacks=[_at(6, spoil)])


def _at(step, deed):
    return lambda row: deed(row) if row["step"] == step else None
