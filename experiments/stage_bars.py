"""Bars on stderr for the stages of an evaluation."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress

from pyro_avae.evaluation.evaluate import Progress as Report

__all__ = ["stage_bars"]


@contextmanager
def stage_bars(*, enabled: bool) -> Iterator[Report | None]:
    """A callback that shows a bar for each stage on stderr, where that is a terminal; else None.

    Example:
        >>> with stage_bars(enabled=False) as report:
        ...     print(report)
        None
    """
    if not enabled or not sys.stderr.isatty():
        yield None
        return
    with Progress(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report
