"""Settings that are given and would change nothing: refused, so that nobody believes that they did."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.options import option
from pyro_avae.runs.settings import Settings

__all__ = ["WatchedSettings", "refuse_unread", "refuse_unused"]


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
    "leapfrog_steps": _Need(lambda s: s.guide == "hamiltonian", "--guide hamiltonian"),
    "tempering": _Need(lambda s: s.guide == "hamiltonian", "--guide hamiltonian"),
    "hidden": _Need(lambda s: s.architecture == "mlp", "--architecture mlp"),
    "jacobian_step": _Need(lambda s: s.jacobian_l1 > 0, "--jacobian-l1 above 0"),
    "channels": _Need(lambda s: s.architecture == "conv", "--architecture conv"),
    "auxiliary_statistics": _Need(lambda s: s.normalization == "batch", "--normalization batch"),
    "window": _Need(lambda s: s.model == "lossy", "--model lossy"),
    "flow_steps": _Need(lambda s: s.prior == "flow", "--prior flow"),
    "flow_hidden": _Need(lambda s: s.prior == "flow", "--prior flow"),
    "obs_variance": _Need(lambda s: s.likelihood.startswith("gaussian"), "a Gaussian --likelihood"),
}


#: What data and training read, whatever the method.
_READ_BY_TRAINING = frozenset(
    {
        *("method", "dataset", "data_root", "limit", "start_from", "seed", "steps", "batch_size", "lr", "kl_warmup"),
        *("log_every", "checkpoint_every", "keep_every", "compile", "precision"),
    }
)


class WatchedSettings(Settings):
    """Settings that know which of them were read; a copy made by ``replace`` or ``to_json`` reads them all."""

    @classmethod
    def of(cls, settings: Settings) -> "WatchedSettings":
        """The same settings, watched from now on."""
        watched = cls(**{field.name: getattr(settings, field.name) for field in fields(settings)})
        watched.read.clear()
        return watched

    @property
    def read(self) -> set[str]:
        """Names of the settings that were read."""
        names: set[str] = self.__dict__.setdefault("_read", set())
        return names

    def __getattribute__(self, name: str) -> Any:
        if name in Settings.__dataclass_fields__:
            self.read.add(name)
        return super().__getattribute__(name)


def refuse_unread(builder: str, given: Collection[str], read: Collection[str]) -> None:
    """Refuse settings of the command line that one's own ``module:function`` did not read.

    Raises:
        InputError: there is one.
    """
    for name in given:
        if name not in read and name not in _READ_BY_TRAINING:
            raise InputError(f"{option(name)}: {builder} did not read settings.{name}; leave it out, or have it read")


def refuse_unused(settings: Settings, given: Mapping[str, Any]) -> None:
    """Refuse settings of the command line that would change nothing; see :func:`refuse_unread` for one's own methods.

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
