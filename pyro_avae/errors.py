"""The one exception that user input can cause, so that callers can tell it from a defect."""

__all__ = ["InputError"]


class InputError(ValueError):
    """Input that the library cannot use: an argument, a file or a combination of options.

    The message is one line that says what was expected, what came, where, and what to do. The command line prints it
    as it is and exits with status 2; from Python it is an ordinary :class:`ValueError`.

    Example:
        >>> raise InputError("rho: expected |rho| < 1, got 1.5")
        Traceback (most recent call last):
        pyro_avae.errors.InputError: rho: expected |rho| < 1, got 1.5
    """
