"""What a command line ends with: a status, and one line where something went wrong.

Nothing is imported here that takes time, torch least of all: Ctrl-C has to end in one line from the start.
"""

import os
import sys
from collections.abc import Callable

from pyro_avae.errors import InputError, RankError

__all__ = ["exit_status"]

_USAGE = 2
_INTERRUPTED = 130
_BROKEN_PIPE = 141
_LONGEST = 600


def exit_status(name: str, run: Callable[[], int | None]) -> int:
    """Run a command and return its exit status, with one line on stderr that begins with ``name`` if it failed.

    0 is success, 2 is input that cannot be used (the line says what), 130 and 143 are Ctrl-C and SIGTERM. Any other
    exception is a defect, here or in a method of the user's own, and keeps its traceback.

    Args:
        name: what the command is called.
        run: does its work, and returns its status, or None for 0.
    """
    try:
        from pyro_avae.experiments.termination import signals_raise

        with signals_raise():
            status = run()
            sys.stdout.flush()
    except BrokenPipeError:
        # Nobody reads on (pyro-avae ... | head). Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except KeyboardInterrupt as error:
        _say(name, str(error) or "interrupted")
        return 128 + error.signum if hasattr(error, "signum") else _INTERRUPTED
    except (InputError, OSError, FloatingPointError, RankError) as error:
        _say(name, f"error: {_one_line(error)}")
        return _USAGE
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and type(error).__name__ != "OutOfMemoryError":
            raise
        _say(name, f"error: out of memory; use a smaller --batch-size or smaller networks: {_one_line(error)}")
        return _USAGE
    except SystemExit as error:  # --help and --version
        return error.code if isinstance(error.code, int) else 0
    return status or 0


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename or 'system'}: {error.strerror}"
    line = (text.splitlines() or [type(error).__name__])[0]
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def _say(name: str, text: str) -> None:
    print(f"{name}: {text}", file=sys.stderr)
