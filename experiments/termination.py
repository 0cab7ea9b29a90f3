"""Ctrl-C and SIGTERM as exceptions that no library turns into others: a command ends of them in one line."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Stopped", "signals_raise"]

#: What each is called in a message, and the handler that a process has of it before anybody cared.
_SIGNALS = {
    signal.SIGINT: ("interrupted", signal.default_int_handler),
    signal.SIGTERM: ("terminated", signal.SIG_DFL),
}

#: Where the frames of an import come from.
_IMPORT = "<frozen importlib._bootstrap>"

#: Seconds from look to look whether a signal is obeyed.
_INTERVAL = 0.05


class Stopped(KeyboardInterrupt):
    """A signal came.

    Attributes:
        signum: the signal.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(_SIGNALS[signal.Signals(signum)][0])
        self.signum = signum


@contextmanager
def signals_raise() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise :class:`Stopped`, which leaves the block whatever becomes of it inside.

    Not everything lets an exception through. Modules in C++ abort the process when one comes while they are imported,
    so that a first signal waits for the end of an import; C code that looks whether an attribute is there may drop any,
    and what runs while an object is freed does. An alarm therefore raises it again, until it is on its way out.

    A signal that somebody handles or ignores is left to them (a job in the background ignores SIGINT), and so is the
    alarm of somebody who has set one: then a signal raises once, at once.
    """
    came: list[int] = []
    before: dict[int, Any] = {}
    imports = _imports(sys._getframe())

    def stop(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        if _ring(before, every=_INTERVAL) and len(came) == 1 and _imports(frame) > imports:
            return
        raise Stopped(signum)

    def stop_again(signum: int, frame: FrameType | None) -> None:
        if _imports(frame) <= imports and not _on_its_way(sys.exception()):
            raise Stopped(came[0])

    def tell_unraisable(about: Any) -> None:
        if not isinstance(about.exc_value, Stopped):
            unraisable(about)

    for signum, (_, nobody) in _SIGNALS.items():
        _handle(signum, stop, nobody, before)
    if before and hasattr(signal, "SIGALRM"):  # of POSIX
        _handle(signal.SIGALRM, stop_again, signal.SIG_DFL, before)
    unraisable = sys.unraisablehook
    sys.unraisablehook = tell_unraisable
    try:
        yield
        if came:
            raise Stopped(came[0])
    except Exception:
        # An import that is interrupted may fail in a way of its own: numpy's recurses without end.
        if came:
            raise Stopped(came[0]) from None
        raise
    finally:
        _ring(before, every=0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


def _handle(signum: int, handler: Any, nobody: Any, before: dict[int, Any]) -> None:
    """Handle the signal where ``nobody`` does and this thread may; what handled it goes to ``before``."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signum) is nobody:
        before[signum] = signal.signal(signum, handler)


def _ring(before: dict[int, Any], *, every: float) -> bool:
    """Set off our alarm every so many seconds (0: no more), if it is ours, and say whether it is."""
    ours = hasattr(signal, "SIGALRM") and signal.SIGALRM in before
    if ours:
        signal.setitimer(signal.ITIMER_REAL, every, every)
    return ours


def _imports(frame: FrameType | None) -> int:
    """How many imports are under way."""
    count = 0
    while frame is not None:
        count += frame.f_code.co_filename == _IMPORT
        frame = frame.f_back
    return count


def _on_its_way(error: BaseException | None) -> bool:
    """Whether a handler that now runs (``finally`` is one too) was entered because of a signal."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None
