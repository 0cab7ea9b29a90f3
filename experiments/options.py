"""Options of the command line made of what a setting may be."""

import argparse
from collections.abc import Callable
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.runs.kinds import Integer, IntegerList, Kind, Optional, Switch
from pyro_avae.runs.settings import setting_infos

__all__ = ["COUNT", "add_setting", "option", "reader"]

#: Counts, such as steps between checkpoints.
COUNT = Integer(1, 10**12)


def reader(name: str, kind: Kind) -> Callable[[str], Any]:
    """What argparse calls on an option's text: the value, or the error to which argparse adds the option's name."""

    def read(text: str) -> Any:
        try:
            return kind.read(name, text)
        except InputError as error:
            raise argparse.ArgumentTypeError(str(error).removeprefix(f"{name}: ")) from None

    return read


def option(name: str) -> str:
    """``--batch-size`` for the setting ``batch_size``."""
    return setting_infos()[name].option


def add_setting(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:
    """An option for a setting. Left out, it is absent from the arguments, so that a resumed run can tell."""
    info = setting_infos()[name]
    if isinstance(info.kind.kind if isinstance(info.kind, Optional) else info.kind, Switch):
        words = {"help": info.help, **changes}
        parser.add_argument(
            info.option, dest=name, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, **words
        )
        return
    several = isinstance(info.kind, IntegerList)
    kind = info.kind.item if isinstance(info.kind, IntegerList) else info.kind
    parser.add_argument(
        info.option,
        dest=name,
        type=reader(info.option, kind),
        nargs="+" if several else None,
        metavar=kind.metavar,
        default=argparse.SUPPRESS,
        **{"help": info.help, **changes},
    )
