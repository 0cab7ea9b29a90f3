"""Every option of every command, read off the parsers: whatever its value, one line, status 2, and nothing written."""

import argparse
import warnings

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.commands import COMMANDS, command_parser
from pyro_avae.experiments.redraw import main as redraw

#: Values that mean something to some option and nothing to most.
VALUES = [
    *["", " ", "-1", "0", "1", "1.5", "-0.0", "1e-320", "9" * 30, "9" * 5000, "nan", "-nan", "inf", "-inf", "1e999"],
    *["é", "日本", "٣", "x" * 5000, "\x00", "\udcff", "a\nb", "\x1b[31m", "None", "true", "..", "-", "--", "[1]", "{}"],
    *["0x10", "1_000", "1,5", ":", "a:b", "os:getcwd", "folder:", "folder:nowhere", "~nobody/x", "/dev/null/x"],
]

#: Texts that are no number at all, which an option that is read as one refuses by its name.
NO_NUMBERS = ["", " ", "é", "x" * 5000, "\x00", "\udcff", "a\nb", "None", "--", "[1]", "nan", "9" * 5000 + "e"]

#: What makes a command end soon, in one line, where every other value is right; twice where one could be made right.
ENDS = {
    "quickstart": ["--out", "full", "--device", "abacus"],
    "verify": ["--device", "abacus"],
    "train": ["--out", "out", "--dataset", "mnist", "--data-root", "nowhere"],
    "evaluate": ["nowhere"],
    "influence": ["nowhere"],
    "ood": ["nowhere", "--ood", "mnist"],
    "report": ["nowhere", "--out", "out/report.html"],
    "reproduce": ["color-mnist", "--out", "full/file", "--device", "abacus"],
}


def options(command):
    """Name, action, and whether it takes a value, but for --help."""
    actions = [action for action in command_parser(command)._actions if action.dest != "help"]
    return [(action.option_strings[-1] if action.option_strings else None, action) for action in actions]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with one file in it, which no command may write to."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def words(command, option, values):
    """The command with its option given once or more, as ``--option value`` and as ``--option=value``."""
    ends = ENDS[command]
    if option is None:  # in the place of the first word
        return [[command, *values[:1], *(ends if ends[0].startswith("-") else ends[1:])]]
    separate = [word for value in values for word in (option, value)]
    return [[command, *ends, *separate], [command, *ends, *(f"{option}={value}" for value in values)]]


def test_every_command_is_here():
    assert ENDS.keys() == COMMANDS.keys()


def cases(command, values):
    """All options with all values, once and twice, an option without one, and names that are none."""
    for option, action in options(command):
        if action.nargs == 0:
            yield [command, *ENDS[command], f"{option}=1"]
            continue
        for value in values:
            yield from words(command, option, [value])
        if option is not None:
            yield from words(command, option, ["1", values[0]])
            yield [command, *ENDS[command], option]
            yield [command, *ENDS[command], option.upper(), "1"]


def check(refused, place, case):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        message = refused(*case)
    assert message.isprintable() and len(message) < 1200, case
    assert [path.name for path in place.iterdir()] == ["full"], case
    assert [path.name for path in (place / "full").iterdir()] == ["file"], case


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_is_one_line_whatever_its_value(refused, place, command):
    """A value in turn for each option, so that the fast tests are; the slow ones try all with all."""
    turns = list(cases(command, VALUES))
    for case in turns[:: max(1, len(turns) // 60)]:
        check(refused, place, case)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_one_line_whatever_its_value(refused, place, command):
    for case in cases(command, VALUES):
        check(refused, place, case)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_parser_reads_or_refuses_any_value_of_any_option(place, command):
    """Never another error; and what is read as a number refuses what is none by the option's name."""
    parser = command_parser(command)
    for option, action in options(command):
        for value in VALUES + NO_NUMBERS if action.nargs != 0 else []:
            for case in words(command, option, [value]):
                message = ""
                try:
                    parser.read(case[1:])
                except InputError as error:
                    message = str(error)
                if _is_read(action) and value in NO_NUMBERS:
                    assert message.startswith(f"argument {'/'.join(action.option_strings)}: expected"), (case, message)


def _is_read(action: argparse.Action) -> bool:
    """Whether its text is turned into a number, one that can be a text of its own included."""
    return getattr(action.type, "__name__", "") in ("read", "_seed") and action.metavar in ("N", "NUMBER")


@pytest.mark.parametrize(
    "words",
    [[], ["--nonsense"], [""], ["nowhere.json"], ["."], ["\x00"], ["\udcff"], ["a\nb"], ["x" * 5000], ["--", "-"]],
)
def test_the_script_that_draws_again_has_one_line_too(place, capsys, words):
    assert redraw(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and err.startswith("redraw: error: ")
    assert [path.name for path in place.iterdir()] == ["full"]
