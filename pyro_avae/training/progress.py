"""What is shown while training runs: a bar on a terminal, a few lines elsewhere."""

import time
from typing import TYPE_CHECKING, Protocol

from pyro_avae.runs.run_folder import Row

if TYPE_CHECKING:
    # Where it is used, and not here: importing rich takes draws from Python's own `random`.
    from rich.console import Console

__all__ = ["Bar", "Lines", "Reporter", "Silent", "default_reporter", "describe"]


class Reporter(Protocol):
    """What training tells of itself to whom it may concern."""

    def start(self, done: int, total: int) -> None:
        """Training begins, ``done`` of ``total`` steps being done."""

    def advance(self, done: int) -> None:
        """A step was done; called at every step, so it has to be cheap."""

    def log(self, row: Row) -> None:
        """A step was logged."""

    def note(self, text: str) -> None:
        """A line that says what is going on."""

    def stop(self) -> None:
        """Training has ended, well or not."""


class Silent:
    """Shows nothing."""

    def start(self, done: int, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def log(self, row: Row) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Bar:
    """A bar with the loss and each term of the bound: nats, means per image."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        speed = TextColumn("{task.fields[speed]}")
        terms = TextColumn("{task.fields[terms]}")
        self._progress = Progress(
            BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), speed, terms, console=console, transient=False
        )
        self._shown = self._began = 0.0
        self._first = 0

    def start(self, done: int, total: int) -> None:
        self._began, self._first = time.monotonic(), done
        self._task = self._progress.add_task("", total=total, completed=done, speed="", terms="")
        self._progress.start()

    def advance(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown > 0.1:
            self._shown = now
            speed = f"{1e3 * (now - self._began) / max(done - self._first, 1):.1f} ms/step"
            self._progress.update(self._task, completed=done, speed=speed)

    def log(self, row: Row) -> None:
        self._progress.update(self._task, completed=int(row["step"] or 0), terms=describe(row))

    def note(self, text: str) -> None:
        self._progress.console.print(text, soft_wrap=True, highlight=False)

    def stop(self) -> None:
        self._progress.stop()


class Lines:
    """About ``count`` lines in all, for a log file."""

    def __init__(self, console: "Console", *, count: int = 10) -> None:
        self._console, self._count = console, count

    def start(self, done: int, total: int) -> None:
        self._total, self._every, self._next = total, max(total // self._count, 1), done

    def advance(self, done: int) -> None: ...

    def log(self, row: Row) -> None:
        step = int(row["step"] or 0)
        if step >= self._next or step == self._total:
            self._next = step + self._every
            self.note(f"step {step}/{self._total}  {describe(row)}")

    def note(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False)

    def stop(self) -> None: ...


def default_reporter() -> Reporter:
    """A :class:`Bar` where stderr is a terminal, else :class:`Lines` on stderr."""
    from rich.console import Console

    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


def describe(row: Row) -> str:
    """A logged row as text, without its step and the entropies, which are no part of the loss.

    Example:
        >>> describe({"step": 3, "loss": 12.5, "x": -10.0, "z": -2.5, "x_aux_entropy": 1.0})
        'loss 12.50  x -10.00  z -2.50'
    """
    shown = {name: value for name, value in row.items() if name != "step" and not name.endswith("_entropy")}
    return "  ".join(f"{name} {_number(name, value)}" for name, value in shown.items())


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name in ("rho", "obs_variance") else f"{value:.2f}"
