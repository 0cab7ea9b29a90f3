"""Real processes, really killed: what they saved is there, and the run goes on exactly."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pyro_avae.runs.checkpoints import newest_checkpoint

RUN = ["train", "--rho", "learned", "--hidden", "16", "--latent-dim", "4", "--batch-size", "16", "--limit", "60"]
RUN += ["--lr", "0.003", "--device", "cpu", "--steps", "600", "--log-every", "5", "--checkpoint-every", "20"]
RUN += ["--no-progress"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same run, never stopped."""
    from pyro_avae.experiments.cli import main

    run = tmp_path_factory.mktemp("whole") / "run"
    with torch.random.fork_rng(devices=[]):
        assert main([*RUN, "--out", str(run)]) == 0
    return run


def wait_for_step(run, step):
    """Until a checkpoint of the step or a later one is there."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        saved = [int(path.stem.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*.json")]
        if max(saved, default=0) >= step:
            return
        time.sleep(0.002)
    raise AssertionError("no checkpoint in two minutes")


def assert_same(run, whole, *, step=600):
    one, other = (newest_checkpoint(folder / "checkpoints") for folder in (run, whole))
    assert one.step == other.step == step and one.tensors.keys() == other.tensors.keys()
    assert "model.coupling.raw" in one.tensors
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name
    assert (run / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()


def test_kill_9_then_resume_equals_the_run_that_was_never_stopped(process, cli, tmp_path, whole):
    run = tmp_path / "run"
    running = process(*RUN, "--out", run)
    wait_for_step(run, 100)
    running.kill()
    running.communicate()
    assert running.returncode == -signal.SIGKILL
    assert newest_checkpoint(run / "checkpoints").step < 600
    assert cli("train", "--out", run, "--resume", "--device", "cpu", "--no-progress").status == 0
    assert_same(run, whole)
    rhos = [json.loads(line)["rho"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert len(set(rhos)) > 100


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_has_its_status(process, cli, tmp_path, whole, signum, status):
    run = tmp_path / "run"
    running = process(*RUN, "--out", run)
    wait_for_step(run, 20)
    running.send_signal(signum)
    out, err = running.communicate(timeout=120)
    assert running.returncode == status, (out, err)
    step = newest_checkpoint(run / "checkpoints").step
    assert f"stopped by {signal.Signals(signum).name} at step {step}, which is saved" in err
    assert "Traceback" not in err and len(err.splitlines()) == 1
    assert cli("train", "--out", run, "--resume", "--device", "cpu", "--no-progress").status == 0
    assert_same(run, whole)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.parametrize(
    ("kills", "steps", "every"), [(3, 600, 20), pytest.param(50, 4000, 25, marks=pytest.mark.slow)]
)
def test_killed_again_and_again_it_equals_the_run_that_was_never_stopped(
    tmp_path, cli, environment, kills, steps, every
):
    """At random moments, every third as soon as a file of a checkpoint is half written."""
    words = [*RUN[:-1], "--steps", str(steps), "--checkpoint-every", str(every), "--no-progress"]
    assert cli(*words, "--out", tmp_path / "whole").status == 0
    script = Path(__file__).with_name("kill_often.py")
    command = [sys.executable, str(script), str(kills), "0", *words, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["kills"] == kills and found["status"] == 0
    assert found["inside"] >= (5 if kills >= 50 else 0), found
    assert_same(tmp_path / "run", tmp_path / "whole", step=steps)


def test_a_folder_takes_one_training_at_a_time(process, refused, tmp_path):
    run = tmp_path / "run"
    running = process(*RUN, "--steps", "100000", "--out", run)
    wait_for_step(run, 20)
    message = refused("train", "--out", run, "--resume", "--device", "cpu", "--no-progress")
    assert f"process {running.pid} on " in message and "trains there; wait for its end" in message
    assert running.poll() is None
    running.kill()
    running.communicate()
    # What was killed holds nothing any more.
    steps = str(newest_checkpoint(run / "checkpoints").step)
    assert "--steps" in refused("train", "--out", run, "--resume", "--steps", steps, "--no-progress")


def test_a_full_disk_is_one_line_and_the_checkpoint_before_is_kept(cli, tmp_path, monkeypatch, whole):
    run, fsync, calls = tmp_path / "run", os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        stopped = cli(*RUN, "--out", run)
    assert stopped.status == 2 and len(stopped.err.splitlines()) == 1 and "No space left on device" in stopped.err
    kept = newest_checkpoint(run / "checkpoints")
    assert 0 < kept.step < 600 and not list(run.rglob("*.tmp"))
    assert cli("train", "--out", run, "--resume", "--device", "cpu", "--no-progress").status == 0
    assert_same(run, whole)
