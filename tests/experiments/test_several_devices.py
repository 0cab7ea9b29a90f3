"""The command line on several processes: Fabric's and torchrun's, and one that is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pyro_avae.experiments.cli import main
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.training import fabric

COMMAND = "train --method avae --dataset color-digits --batch-size 8 --hidden 8 --latent-dim 2 --device cpu --limit 50"
MODULE = [sys.executable, "-m", "pyro_avae.experiments.cli"]


def options(out, steps=10):
    return [*COMMAND.split(), "--steps", str(steps), "--no-progress", "--out", str(out)]


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["fabric", "torchrun"])
def test_two_processes_leave_the_run_of_one(tmp_path, launcher, capfd):
    assert main(options(tmp_path / "one")) == 0
    command = [*MODULE, *options(tmp_path / "two"), "--devices", "2"]
    if launcher == "torchrun":
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*start, "-m", "pyro_avae.experiments.cli", *options(tmp_path / "two")]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment())
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("10 steps") == 1  # the first rank speaks
    one, two = (newest_checkpoint(tmp_path / name / "checkpoints") for name in ("one", "two"))
    for name, tensor in one.tensors.items():
        if name.startswith(("model.", "guide.")):
            torch.testing.assert_close(tensor, two.tensors[name], rtol=1e-4, atol=1e-5)
    again = [*MODULE, *options(tmp_path / "two"), "--devices", "2"]
    found = subprocess.run(again, capture_output=True, text=True, timeout=300, env=environment())
    assert found.returncode != 0 and found.stderr.count("expected a new or empty folder") == 1


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_one_line(tmp_path):
    command = [*MODULE, *options(tmp_path / "run", steps=10**6), "--devices", "2", "--checkpoint-every", "20"]
    process = subprocess.Popen(
        [*command, "--no-compile"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    deadline = time.monotonic() + 200
    while not list((tmp_path / "run" / "checkpoints").glob("*.json")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    listing = ["ps", "-o", "pid=", "--ppid", str(process.pid)]
    (child,) = subprocess.run(listing, capture_output=True, text=True, check=True).stdout.split()
    os.kill(int(child), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert errors.count("rank 0 of 2: another process of this training has ended") == 1
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == 10**6


def test_one_device_needs_no_fabric(tmp_path, monkeypatch):
    monkeypatch.setattr(fabric, "launch", lambda **_: pytest.fail("launched"))
    assert main([*options(tmp_path / "run", steps=2), "--devices", "1", "--nodes", "1"]) == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--devices", "0"], "--devices: expected an integer in 1..100000, got '0'"),
        (["--devices", "2", "--device", "cuda:0"], "--device: expected cpu or cuda with several --devices, got cuda:0"),
        (["--devices", "3"], "--batch-size: expected a multiple of the 3 devices, got 8"),
        (["--precision", "half"], "precision: expected one of 32-true, bf16-mixed, 64-true, got 'half'"),
    ],
)
def test_wrong_options(tmp_path, capsys, given, message):
    assert main([*options(tmp_path / "run"), *given]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and message in error
    assert not (tmp_path / "run").exists()


def test_without_fabric_the_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert main([*options(tmp_path / "run"), "--devices", "2"]) == 2
    assert "pip install 'pyro-avae[distributed]'" in capsys.readouterr().err


def test_mixed_precision_trains(tmp_path):
    assert main([*options(tmp_path / "run"), "--precision", "bf16-mixed"]) == 0
    found = newest_checkpoint(tmp_path / "run" / "checkpoints")
    assert found.facts["fit"]["precision"] == "bf16-mixed"
    assert all(t.dtype == torch.float32 for name, t in found.tensors.items() if name.startswith("guide."))
