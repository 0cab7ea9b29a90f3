"""``pyro-avae``: runs a command, and turns what goes wrong into one line.

Nothing is imported here that takes time, torch least of all: Ctrl-C has to end in one line from the start.
"""

import os
import sys
from collections.abc import Sequence

from pyro_avae.errors import InputError, RankError

__all__ = ["main"]

_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_LONGEST = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0 is success, 2 is input that cannot be used (one line on stderr says what), 130 and 143 are Ctrl-C and SIGTERM.
    Any other exception is a defect, here or in a method of the user's own, and keeps its traceback.

    Args:
        argv: the arguments; those of the process by default.
    """
    try:
        from pyro_avae.experiments.termination import signals_raise

        with signals_raise():
            from pyro_avae.experiments.commands import run_command

            status = run_command(list(sys.argv[1:] if argv is None else argv))
            sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on (pyro-avae ... | head). Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt as error:
        _say(str(error) or "interrupted")
        return 128 + error.signum if hasattr(error, "signum") else _INTERRUPTED
    except (InputError, OSError, FloatingPointError, RankError) as error:
        _say(f"error: {_one_line(error)}")
        return _USAGE
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        _say(f"error: out of memory; use a smaller --batch-size or smaller networks: {_one_line(error)}")
        return _USAGE
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0
    return status


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'system'}: {error.strerror}"
    line = (text.splitlines() or [type(error).__name__])[0]
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _say(text: str) -> None:
    print(f"pyro-avae: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
