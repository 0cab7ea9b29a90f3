"""Ctrl-C and SIGTERM as exceptions that no library turns into others: a command ends of them in one line."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "signals_raise"]

#: What each is called in a message, and the handler that a process has of it before anybody cared.
_SIGNALS = {
    signal.SIGINT: ("interrupted", signal.default_int_handler),
    signal.SIGTERM: ("terminated", signal.SIG_DFL),
}


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

    A signal that somebody handles or ignores is left to them (a job in the background ignores SIGINT).
    """
    came: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        came.append(signum)
        raise Stopped(signum)

    on_main_thread = threading.current_thread() is threading.main_thread()
    ours = {
        signum: before
        for signum, (_, before) in _SIGNALS.items()
        if on_main_thread and signal.getsignal(signum) is before
    }
    for signum in ours:
        signal.signal(signum, stop)
    try:
        yield
    except Exception:
        # An import that is interrupted may fail in a way of its own: numpy's recurses without end.
        if came:
            raise Stopped(came[0]) from None
        raise
    finally:
        for signum, before in ours.items():
            signal.signal(signum, before)
