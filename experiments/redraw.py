"""Draws the figures of a ``results.json`` again, without the runs, beside it.

::

    python -m pyro_avae.experiments.redraw OUT/results.json

``pyro-avae reproduce`` writes the same files: ``curves.svg``, and where there are rows enough ``rho.svg`` and
``ablation.svg``. The same numbers give the same bytes under the same matplotlib.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pyro_avae.errors import InputError
from pyro_avae.experiments.one_line_parser import OneLineParser
from pyro_avae.experiments.results_figures import write_figures
from pyro_avae.paths import shown
from pyro_avae.runs.files import read_json

__all__ = ["main", "redraw"]


def redraw(results: Path) -> list[Path]:
    """Write the figures beside ``results``; returns their paths.

    Raises:
        InputError: no such file, one that ``pyro-avae reproduce`` has not written, or no writing beside it.
    """
    document = read_json(results)
    try:
        return write_figures(document, results.parent)
    except InputError as error:
        raise InputError(f"{shown(results)}: {error}") from error
    except OSError as error:
        raise InputError(f"{shown(results.parent)}: cannot be written to: {error.strerror or error}") from error
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError):
        raise InputError(f"{shown(results)}: expected what pyro-avae reproduce writes, got other JSON") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of this script; returns the exit status."""
    parser = OneLineParser(prog="redraw", description="Draw the figures of results.json again, beside it.")
    parser.add_argument("results", type=Path, nargs="+", metavar="RESULTS", help="a results.json")
    try:
        for results in parser.read(sys.argv[1:] if argv is None else argv).results:
            for path in redraw(results):
                print(f"written to {shown(path)}")
    except InputError as error:
        line = " ".join(part if part.isprintable() else ascii(part) for part in str(error).split())
        print(f"redraw: error: {line}; give the results.json of a reproduction", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
