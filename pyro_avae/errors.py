"""What can go wrong that is no defect, so that callers can tell the two apart, and how a message shows a value."""

import re

__all__ = ["InputError", "RankError", "shown_value"]

# What Pyro puts behind the message of an error that is raised within a program: a table of its sites.
_SITES = re.compile(r"\n\s*Trace Shapes:.*", re.DOTALL)

_LONGEST = 80


class InputError(ValueError):
    """Input that the library cannot use: an argument, a file or a combination of options.

    The message is one line that says what was expected, what came, where, and what to do. The command line prints it
    as it is and exits with status 2; from Python it is an ordinary :class:`ValueError`.

    Example:
        >>> raise InputError("rho: expected |rho| < 1, got 1.5")
        Traceback (most recent call last):
        pyro_avae.errors.InputError: rho: expected |rho| < 1, got 1.5
    """

    def __init__(self, message: str) -> None:
        super().__init__(_SITES.sub("", message))


def shown_value(value: object) -> str:
    """``repr`` of a value, short enough for a message of one line."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python prints
        text = "a number of thousands of digits"
    except RecursionError:
        text = "a value nested too deeply to be shown"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


class RankError(RuntimeError):
    """Another process of the training has ended, or cannot be reached any more."""
