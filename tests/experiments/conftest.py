"""The command line in this process and in one of its own; documents like ``results.json``."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pyro_avae.experiments.cli import main
from pyro_avae.experiments.paper import COLOR_MNIST
from pyro_avae.experiments.results import summary
from pyro_avae.experiments.rows import GROUPS
from pyro_avae.runs.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


def call(*argv: str | Path) -> Outcome:
    """``main`` in this process, with what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(word) for word in argv])
    return Outcome(status, out.getvalue(), err.getvalue())


def environment() -> dict[str, str]:
    """The environment of a process that finds this checkout from any folder."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(name="environment")
def environment_fixture() -> dict[str, str]:
    """:func:`environment`."""
    return environment()


def start(*argv: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "pyro_avae.experiments.cli", *map(str, argv)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment(), text=True, **pipes)


@pytest.fixture
def cli() -> Callable[..., Outcome]:
    """``cli("train", ...)`` to status, stdout and stderr."""
    return call


@pytest.fixture
def refused() -> Callable[..., str]:
    """Call the command line, expect one line on stderr and status 2, and return the message."""

    def check(*argv: str | Path) -> str:
        status, out, err = call(*argv)
        assert status == 2, (status, out, err)
        assert out == ""
        lines = err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("pyro-avae: error: "), err
        return lines[0].removeprefix("pyro-avae: error: ")

    return check


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in a process of its own, in an empty folder; a test that fails leaves none running."""
    started: list[subprocess.Popen[str]] = []

    def begin(*argv: str | Path) -> subprocess.Popen[str]:
        started.append(start(*argv, cwd=tmp_path))
        return started[-1]

    yield begin
    for one in started:
        if one.poll() is None:
            one.kill()
            one.communicate()


def results_row(name: str, values: list[float], *, groups=GROUPS, majority: float = 0.2, **settings) -> dict:
    """A row of ``results.json``: accuracies by seed, half of them at radius 0.1."""
    accuracy = {"digit": {"0.0": summary(values), "0.1": summary([v / 2 for v in values])}}
    paper = COLOR_MNIST.get(name)
    return {
        "method": name,
        "row": name,
        "label": name.upper(),
        "groups": list(groups),
        "settings": Settings(**settings).to_json(),
        "paper": None if paper is None else paper.to_json(),
        "ours": {
            "seeds": list(range(len(values))),
            "steps": 10,
            "accuracy": accuracy,
            "balanced_accuracy": accuracy,
            "majority": {"digit": majority},
            "time": None,
            "gaussian_nll_0.5": summary([1369.25]),
            "sse": summary([23.0]),
            "fid": None,
            "fid_features": ["features of a|b"],
            "consistency_kl": summary([1.5]),
            "reencoding_error": None,
        },
    }


def results_document(*rows: dict) -> dict:
    """What the tables and figures read of ``results.json``."""
    attack = {"steps": 40, "restarts": 2, "limit": 1000}
    return {"dataset": "color-mnist", "preset": "cpu", "rows": list(rows), "evaluation": attack}


@pytest.fixture
def row() -> Callable[..., dict]:
    """``row("avae", [0.9, 0.8], rho=0.5)``: a row of ``results.json`` with two seeds."""
    return results_row


@pytest.fixture
def document() -> Callable[..., dict]:
    """``document(row, ...)``: the content of ``results.json``."""
    return results_document
