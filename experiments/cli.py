"""``pyro-avae``: runs a command, and turns what goes wrong into one line.

Nothing is imported here that takes time, torch least of all: Ctrl-C has to end in one line from the start.
"""

import sys
from collections.abc import Sequence

from pyro_avae.experiments.exit_status import exit_status

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status, as :func:`~pyro_avae.experiments.exit_status.exit_status` does.

    Args:
        argv: the arguments; those of the process by default.
    """

    def run() -> int:
        from pyro_avae.experiments.commands import run_command

        return run_command(list(sys.argv[1:] if argv is None else argv))

    return exit_status("pyro-avae", run)


if __name__ == "__main__":
    sys.exit(main())
