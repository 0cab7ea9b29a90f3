"""The commands of ``pyro-avae``: their table, and how one is found, read and run.

argparse reads the options; those of a run are made of the typed :class:`~pyro_avae.runs.Settings`
(``experiments/train.py``).
"""

import argparse
import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from pyro_avae.errors import InputError
from pyro_avae.experiments.one_line_parser import OneLineParser

__all__ = ["COMMANDS", "Command", "command_parser", "run_command"]


class Command(NamedTuple):
    """A command: one line of help, and the module that is imported when it is called.

    The module has ``run(args) -> int``, which returns the exit status, and may have ``add_arguments(parser)``, which
    declares options. ``--seed`` and ``--device`` are declared where the module does not do so itself.
    """

    help: str
    module: str


COMMANDS: Mapping[str, Command] = {
    "quickstart": Command("train VAE and AVAE on embedded digits, attack both, report", "quickstart"),
    "verify": Command("check the bounds against their closed forms on linear-Gaussian models", "verify"),
    "train": Command("train a model and guide", "train"),
    "evaluate": Command("attack and measure a trained run, write its evaluation.json", "evaluate"),
    "influence": Command("find the training images that made a trained run what it is", "influence"),
    "ood": Command("score how strange another data set's images are to a trained run", "ood"),
    "report": Command("write an HTML report of runs", "report"),
    "reproduce": Command("train and attack the rows of the paper's tables", "reproduce"),
}


def run_command(argv: list[str]) -> int:
    """Run the command that the words name and return its exit status.

    Raises:
        InputError: no such command or option, or what the command raises.
        SystemExit: the words ask for help or the version, which is printed.
    """
    top = OneLineParser(
        prog="pyro-avae",
        description="Autoencoding Variational Autoencoders as Pyro programs.",
        epilog="commands:\n" + "".join(f"  {name:<12}{command.help}\n" for name, command in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="pyro-avae [--help] [--version] COMMAND ...",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"pyro-avae {_version()}")
    top.add_argument("command", metavar="COMMAND", help="one of those below; pyro-avae COMMAND --help says more")
    # Only what comes before and with the command is read here: a command's options are its own.
    count = next((place + 1 for place, word in enumerate(argv) if not word.startswith("-")), len(argv))
    name = top.parse_args(argv[:count]).command
    if name not in COMMANDS:
        raise InputError(f"command: expected one of {', '.join(COMMANDS)}, got {name!r}")
    parser = command_parser(name)
    args = parser.read(argv[count:])
    try:
        status: int = _module(name).run(args)
    except InputError as error:
        raise InputError(_with_options(str(error), parser)) from error
    return status


def command_parser(name: str) -> OneLineParser:
    """The parser of a command's own words."""
    module = _module(name)
    parser = OneLineParser(prog=f"pyro-avae {name}", description=f"{COMMANDS[name].help}.", allow_abbrev=False)
    if hasattr(module, "add_arguments"):
        module.add_arguments(parser)
    _add_common(parser)
    return parser


def _module(name: str) -> Any:
    return importlib.import_module(f"pyro_avae.experiments.{COMMANDS[name].module}")


def _with_options(message: str, parser: argparse.ArgumentParser) -> str:
    """The message with the names that it begins with as they were typed: ``--batch-size`` for ``batch_size``."""
    names, colon, rest = message.partition(": ")
    options = {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}
    typed = [options.get(name) for name in names.split(", ")]
    return message if None in typed else f"{', '.join(map(str, typed))}{colon}{rest}"


def _add_common(parser: argparse.ArgumentParser) -> None:
    """``--seed`` and ``--device``, where the command has not declared them."""
    declared = {option for action in parser._actions for option in action.option_strings}
    if "--seed" not in declared:
        parser.add_argument(
            "--seed", type=_seed, default=0, metavar="N", help="seed of every random number (default: 0)"
        )
    if "--device" not in declared:
        parser.add_argument("--device", default=None, help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")


def _seed(text: str) -> int:
    if not text.isdecimal() or not int(text) < 2**32:
        raise argparse.ArgumentTypeError(f"expected an integer in 0..{2**32 - 1}, got {text[:80]!r}")
    return int(text)


def _version() -> str:
    try:
        return version("pyro-avae")
    except PackageNotFoundError:  # a checkout that is not installed
        return "unknown (not installed)"
