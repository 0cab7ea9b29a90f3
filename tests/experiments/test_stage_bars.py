"""The bars of an evaluation: on a terminal alone."""

import io

from pyro_avae.experiments.stage_bars import stage_bars


class Terminal(io.StringIO):
    """A stream that says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_how_far_each_stage_is(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr("sys.stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    with stage_bars(enabled=True) as report:
        report("bound", 1, 4)
        report("likelihood", 1, 2)
    assert "bound" in stderr.getvalue()
    assert "25%" in stderr.getvalue()
    assert "50%" in stderr.getvalue()


def test_nothing_is_shown_where_there_is_no_terminal_or_nobody_asked(monkeypatch):
    for stderr, enabled in ((io.StringIO(), True), (Terminal(), False)):
        monkeypatch.setattr("sys.stderr", stderr)
        with stage_bars(enabled=enabled) as report:
            assert report is None
        assert stderr.getvalue() == ""
