"""An interrupted run goes on exactly as if nothing had happened."""

import json
import os
import signal
import threading

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.training import fit
from pyro_avae.training.interrupt import Interrupted, deferred_signals

OPTIONS = {"steps": 40, "batch_size": 8, "lr": 0.01, "log_every": 6, "checkpoint_every": 7}


def finished(run):
    """Everything that a finished run has: tensors of the last checkpoint, and the log."""
    return newest_checkpoint(run / "checkpoints"), (run / "log.jsonl").read_text()


def same(one, other):
    (a, log_a), (b, log_b) = one, other
    assert a.step == b.step and a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name
    assert log_a == log_b
    return True


@pytest.mark.parametrize("rho", [0.9, "learned"])
@pytest.mark.parametrize("step", [1, 12, 30])
def test_a_resumed_run_equals_the_uninterrupted_one(make_pair, images, tmp_path, rho, step, caplog, died, die_at):
    fit(*make_pair(rho=rho), images, **OPTIONS, out=tmp_path / "whole")
    with pytest.raises(died):
        fit(*make_pair(rho=rho), images, **OPTIONS, out=tmp_path / "run", callbacks=[die_at(step)])
    model, guide = make_pair(rho=rho, seed=9 if step > 7 else 0)  # a checkpoint has the parameters
    torch.rand(5)
    result = fit(model, guide, images, **OPTIONS, out=tmp_path / "run", resume=True)
    assert same(finished(tmp_path / "whole"), finished(tmp_path / "run"))
    assert [row["step"] for row in result.history] == [1, 6, 12, 18, 24, 30, 36, 40]
    assert ("no intact checkpoint; starting at step 0" in caplog.text) == (step == 1)


def test_rows_beyond_the_checkpoint_are_dropped(make_pair, images, tmp_path, died, die_at):
    run = tmp_path / "run"
    with pytest.raises(died):
        fit(*make_pair(), images, **OPTIONS, out=run, callbacks=[die_at(12)])
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()] == [1, 6, 12]
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 18, "lo')  # cut off by a kill
    fit(*make_pair(), images, **OPTIONS, out=run, resume=True)
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 6, 12, 18, 24, 30, 36, 40]


def test_a_damaged_newest_checkpoint_costs_only_steps(make_pair, images, tmp_path, caplog, died, die_at):
    fit(*make_pair(), images, **OPTIONS, out=tmp_path / "whole")
    run = tmp_path / "run"
    with pytest.raises(died):
        fit(*make_pair(), images, **OPTIONS, out=run, callbacks=[die_at(30)])
    newest = sorted((run / "checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    fit(*make_pair(), images, **OPTIONS, out=run, resume=True)
    assert "damaged checkpoint" in caplog.text
    assert same(finished(tmp_path / "whole"), finished(run))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_stops(make_pair, images, tmp_path, signum):
    fit(*make_pair(), images, **OPTIONS, out=tmp_path / "whole")
    run = tmp_path / "run"
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught:
        fit(*make_pair(), images, **OPTIONS, out=run, callbacks=[lambda row: os.kill(os.getpid(), signum)])
    assert caught.value.signum == signum and caught.value.step == 1
    assert isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert newest_checkpoint(run / "checkpoints").step == 1
    fit(*make_pair(), images, **OPTIONS, out=run, resume=True)
    assert same(finished(tmp_path / "whole"), finished(run))


def test_a_second_signal_acts_at_once():
    # Ctrl-C's own handler: a shell that starts the tests in its background has them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), deferred_signals() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert request.signum == signal.SIGINT
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_signals_are_left_alone_outside_the_main_thread():
    found = []

    def work():
        with deferred_signals() as request:
            found.append(request.signum)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [None]


def test_a_finished_run_is_not_trained_further(make_pair, images, tmp_path):
    run = tmp_path / "run"
    fit(*make_pair(), images, **OPTIONS, out=run)
    model, guide = make_pair(seed=3)
    result = fit(model, guide, images, **OPTIONS, out=run, resume=True)
    assert result.steps == 40 and len(result.history) == 8
    saved = newest_checkpoint(run / "checkpoints").tensors
    assert torch.equal(
        model.state_dict()["observation.decoder.layers.0.weight"], saved["model.observation.decoder.layers.0.weight"]
    )


def test_another_run_is_refused(make_pair, images, tmp_path):
    run = tmp_path / "run"
    fit(*make_pair(), images, **OPTIONS, out=run)
    for name, value in {"lr": 0.02, "seed": 1, "batch_size": 4}.items():
        with pytest.raises(InputError, match=f"^{name}: the run to go on with has "):
            fit(*make_pair(), images, **{**OPTIONS, name: value, "steps": 50}, out=run, resume=True)
    with pytest.raises(InputError, match=r"^images: the run to go on with has 50, got 49"):
        fit(*make_pair(), images[:49], **{**OPTIONS, "steps": 50}, out=run, resume=True)


def test_a_checkpoint_of_another_pair_changes_nothing(make_pair, images, tmp_path):
    run = tmp_path / "run"
    fit(*make_pair(), images, **OPTIONS, out=run)
    model, guide = make_pair(rho="learned", seed=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=r"^model\.coupling\.raw: the checkpoint has none"):
        fit(model, guide, images, **{**OPTIONS, "steps": 50}, out=run, resume=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
