"""The command line in this process and in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from pyro_avae.experiments.cli import main

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
def process(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line in a process of its own, in an empty folder."""
    return lambda *argv: start(*argv, cwd=tmp_path)
