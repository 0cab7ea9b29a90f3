"""Ctrl-C and SIGTERM from the first moment of a command: one line and the signal's status."""

import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

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
        running.communicate()  # whatever has failed: else its pipes are closed within another test
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
    """The handlers of a process that nobody has changed, and afterwards those of the tests, their alarm among them."""
    remaining = signal.setitimer(signal.ITIMER_REAL, 0)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
    signal.setitimer(signal.ITIMER_REAL, *remaining)


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


def test_a_signal_that_is_dropped_comes_again(handlers, capfd):
    class Freed:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0)

    def drop():
        with suppress(BaseException):
            os.kill(os.getpid(), signal.SIGTERM)

    hook = sys.unraisablehook
    for dropping in (Freed, drop):
        begun = time.monotonic()
        with pytest.raises(Stopped), signals_raise():
            dropping()
            time.sleep(60)
        assert time.monotonic() - begun < 30
    with pytest.raises(Stopped), signals_raise():
        drop()  # and nothing follows that could be interrupted
    assert capfd.readouterr() == ("", "")
    assert sys.unraisablehook is hook
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_import_is_not_interrupted_by_the_first_signal(handlers, tmp_path, monkeypatch):
    signals = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(0.3)\nbegun = True\n"
    (tmp_path / "a_slow_module.py").write_text(signals)
    (tmp_path / "a_slower_module.py").write_text(signals + "os.kill(os.getpid(), signal.SIGINT)\nended = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, whole in (("a_slow_module", True), ("a_slower_module", False)):
        with pytest.raises(Stopped), signals_raise():
            importlib.import_module(name)
            time.sleep(60)
        assert (sys.modules.pop(name, None) is not None) is whole


def test_what_is_tidied_up_after_a_signal_is_left_in_peace(handlers):
    tidied = []

    @contextmanager
    def tidying():
        try:
            yield
        finally:
            try:
                raise OSError("a folder that is gone already")
            except OSError:
                time.sleep(0.4)
                tidied.append("inner")
            time.sleep(0.4)
            tidied.append("outer")

    with pytest.raises(Stopped), signals_raise(), tidying():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
    assert tidied == ["inner", "outer"]


def test_somebody_else_s_alarm_stays_theirs(handlers):
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    try:
        with signals_raise():
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            time.sleep(0.1)
        with pytest.raises(Stopped), signals_raise():
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert rung == [True]


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
