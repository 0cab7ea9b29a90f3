"""Words on the command line, refused in one line. Nothing is imported here that takes time."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from pyro_avae.errors import InputError

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that raises :class:`InputError` where argparse prints its usage and exits."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """``parse_args``, and a value that is ``--`` is none in every Python."""
        found = self.parse_args(words)
        for action in self._actions:
            # Where --option=-- was given, some Pythons leave an empty list, for an option of one value too.
            value = getattr(found, action.dest, None)
            if action.nargs in (None, "+") and value == [] and value is not action.default:
                self.error(f"argument {'/'.join(action.option_strings) or action.dest}: expected one argument")
        return found
