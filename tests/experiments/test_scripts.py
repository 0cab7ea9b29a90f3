"""The scripts beside ``pyro-avae``: what goes wrong is one line and status 2 there too."""

import subprocess
import sys

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.exit_status import exit_status


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("color_mnist", ["--steps", "0"], "argument --steps: expected"),
        ("color_mnist", ["--dataset", "mnist", "--data-root", "nowhere", "--steps", "1"], "nowhere"),
        ("linear_gaussian", ["--rho", "2", "--steps", "1"], "rho"),
        ("linear_gaussian", ["--rho", "much"], "argument --rho: "),
        ("influence_experiment", [], "the following arguments are required: --out"),
        ("influence_experiment", ["--out", "run", "--device", "abacus"], "abacus"),
        ("influence_experiment", ["--out", "run", "--data-root", "nowhere"], "nowhere"),
        ("ood_experiment", ["--out", "run", "--data-root", "nowhere", "--no-progress"], "nowhere"),
        ("ood_experiment", ["--out", "run", "--preset", "large"], "--preset: expected one of smoke, cpu, full"),
        ("ood_experiment", ["--out", "run", "--seed", "-1"], "argument --seed: expected"),
        ("redraw", ["nowhere.json"], "nowhere.json"),
    ],
)
def test_a_bad_option_is_one_line(environment, tmp_path, script, words, said):
    command = [sys.executable, "-m", f"pyro_avae.experiments.{script}", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script}: error: ") and said in line
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_ends_with(capsys):
    def refuse():
        raise InputError("no such thing\nand more")

    def stop():
        raise KeyboardInterrupt

    assert [exit_status("x", run) for run in (lambda: None, lambda: 1, refuse, stop)] == [0, 1, 2, 130]
    assert capsys.readouterr().err.splitlines() == ["x: error: no such thing", "x: interrupted"]
