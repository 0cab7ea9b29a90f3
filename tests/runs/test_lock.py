"""One training for a folder at a time, with real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyro_avae.errors import InputError
from pyro_avae.runs.lock import LOCK, exclusive

pytest.importorskip("fcntl")

#: Holds the folder, has a child that outlives it, and says when it does.
HOLDER = """
import os, sys, time
from pathlib import Path
from pyro_avae.runs.lock import exclusive
with exclusive(Path(sys.argv[1])):
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    child = int(process.stdout.readline())
    yield process
    for pid in (process.pid, child):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def test_another_process_is_kept_out_until_it_is_killed_its_children_alive_or_not(holder, tmp_path):
    with pytest.raises(InputError, match=rf"process {holder.pid} on .* trains there; wait"), exclusive(tmp_path):
        pass
    holder.kill()
    deadline = time.monotonic() + 30
    while holder.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with exclusive(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()


def test_the_same_process_is_kept_out_too(tmp_path):
    with exclusive(tmp_path), pytest.raises(InputError, match="this process trains there already"), exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass


def test_an_error_inside_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path):
        raise ZeroDivisionError
    with exclusive(tmp_path):
        pass


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be written to: No such file"), exclusive(tmp_path / "none"):
        pass
