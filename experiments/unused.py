"""Settings that are given and would change nothing: refused, so that nobody believes that they did."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.options import option
from pyro_avae.runs.settings import Settings

__all__ = ["refuse_unused"]


@dataclass(frozen=True)
class _Need:
    """When a setting is read, and how that is said."""

    holds: Callable[[Settings], bool]
    words: str


def _has_smooth_branch(settings: Settings) -> bool:
    return "coupling" not in METHODS[settings.method].unused


#: Settings that another setting decides the use of.
_NEEDS: Mapping[str, _Need] = {
    "gamma": _Need(lambda s: s.coupling == "pairwise", "--coupling pairwise"),
    "rho": _Need(
        lambda s: not (s.coupling == "pairwise" and _has_smooth_branch(s)), "--coupling factorised or optimal"
    ),
    "hidden": _Need(lambda s: s.architecture == "mlp", "--architecture mlp"),
    "channels": _Need(lambda s: s.architecture == "conv", "--architecture conv"),
    "auxiliary_statistics": _Need(lambda s: s.normalization == "batch", "--normalization batch"),
    "obs_variance": _Need(lambda s: s.likelihood.startswith("gaussian"), "a Gaussian --likelihood"),
}


def refuse_unused(settings: Settings, given: Mapping[str, Any]) -> None:
    """Refuse settings of the command line that would change nothing; one's own methods may read them all.

    Raises:
        InputError: one that the method, or another setting, makes useless.
    """
    if settings.method not in METHODS:
        return
    for name in METHODS[settings.method].unused:
        if name in given:
            raise InputError(f"{option(name)}: the method {settings.method} has no use for it; leave it out")
    for name, need in _NEEDS.items():
        if name in given and not need.holds(settings):
            raise InputError(f"{option(name)}: it takes {need.words} to have a use; leave it out")
