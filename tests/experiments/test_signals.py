"""Ctrl-C and SIGTERM from the first moment of a command: one line and the signal's status."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from pyro_avae.experiments.termination import Stopped, signals_raise

# As the installed command does, with a word between Python's own start and ours.
COMMAND = "import sys; from pyro_avae.experiments.cli import main; print('up', flush=True); sys.exit(main())"
TRAIN = ["train", "--hidden", "8", "--latent-dim", "3", "--limit", "60", "--steps", "1000000", "--device", "cpu"]
#: Importing takes two seconds and more; the last of these are in training.
LONGEST = 4.0


def with_default_handlers():
    """In the child: a job in the background, which the tests may be, ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stopped(environment, run, signum, delay):
    """Start a training, send it the signal after so many seconds, and check how it ends."""
    running = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *TRAIN, "--no-progress", "--out", str(run)],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=with_default_handlers,
    )
    try:
        assert running.stdout.readline() == "up\n"
        time.sleep(delay)
        running.send_signal(signum)
        out, err = running.communicate(timeout=120)
    finally:
        running.kill()
    said = f"{signum.name} after {delay:.3f} s: {running.returncode} {out}{err}"
    if signum == signal.SIGTERM and running.returncode == -signum:
        assert not err and not run.exists(), said  # before main handles it, the system does
        return
    assert running.returncode == 128 + signum and out == "", said
    (line,) = err.splitlines()
    assert line.startswith("pyro-avae: ") and "Traceback" not in err, said
    assert not list(run.rglob("*.tmp")), said
    for path in run.rglob("*.json"):
        json.loads(path.read_text())


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_a_signal_at_any_moment_of_a_start_is_one_line(environment, tmp_path, signum, times):
    for number, delay in enumerate((0.0, *(random.uniform(0, LONGEST) for _ in range(times)))):
        stopped(environment, tmp_path / str(number), signum, delay)


def test_a_command_is_found_before_anything_slow_is_imported(environment):
    code = "import sys; from pyro_avae.experiments.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.fixture
def handlers():
    """The handlers of a process that nobody has changed, and afterwards those of the tests."""
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def test_what_an_interrupted_library_makes_of_it_is_the_signal_still(handlers):
    with pytest.raises(Stopped, match="terminated") as caught, signals_raise():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("numpy.core failed to import") from None
    assert caught.value.signum == signal.SIGTERM
    with pytest.raises(ImportError), signals_raise():
        raise ImportError("of its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_is_handled_or_ignored_is_left_alone(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with signals_raise():
        os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_changes_no_handler(handlers):
    found = []

    def look():
        with signals_raise():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]
