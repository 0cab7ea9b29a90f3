"""Documents of earlier versions, brought to the present form."""

from collections.abc import Callable, Mapping
from typing import Any

from pyro_avae.errors import InputError, shown_value

__all__ = ["Migrations", "migrated"]

#: By the version it starts from: what makes a document of the next version.
Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


def migrated(document: Mapping[str, Any], steps: Migrations, *, current: int, what: str) -> dict[str, Any]:
    """The document in the current form, without its ``format``.

    Args:
        document: with its version under ``format``.
        steps: how each version becomes the next one.
        current: the version of today.
        what: begins the error.

    Raises:
        InputError: no version, a later one, or an earlier one that nothing leads on from.

    Example:
        >>> migrated({"format": 1, "size": 3}, {1: lambda d: {"width": d["size"]}}, current=2, what="settings")
        {'width': 3}
    """
    values = dict(document)
    version = values.pop("format", None)
    if isinstance(version, bool) or not isinstance(version, int) or version > current:
        raise InputError(
            f"{what}: format: expected {current}, got {shown_value(version)}; it takes another pyro_avae to read"
        )
    for step in range(version, current):
        if step not in steps:
            raise InputError(
                f"{what}: format: expected {current}, got {version}; nothing reads format {step} any more, an earlier"
                " pyro_avae does"
            )
        values = steps[step](values)
    return values
