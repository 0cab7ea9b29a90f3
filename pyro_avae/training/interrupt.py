"""Ctrl-C and SIGTERM, put off until training can be saved."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupted", "StopRequest", "deferred_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal, after saving.

    Attributes:
        signum: the signal.
        step: how many steps were done and saved.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} at step {step}, which is saved")
        self.signum, self.step = signum, step


class StopRequest:
    """Whether a signal has come; ``signum`` is it, or None."""

    signum: int | None = None


@contextmanager
def deferred_signals(*, enabled: bool = True) -> Iterator[StopRequest]:
    """Note the first SIGINT or SIGTERM instead of dying of it; a second one acts at once.

    Only the main thread may handle signals: elsewhere, and where not ``enabled``, nothing is changed.
    """
    request = StopRequest()
    if not enabled or threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(signum: int, frame: FrameType | None) -> None:
        request.signum = signum
        restore()

    for number in _SIGNALS:
        previous[number] = signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
