"""The Autoencoding Variational Autoencoder as a Pyro model, guide and ELBO."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pyro_avae._checkout import find_siblings

if TYPE_CHECKING:
    from pyro_avae.auxiliary_draw import auxiliary
    from pyro_avae.compilation import compile_step
    from pyro_avae.elbo import AVAE_ELBO
    from pyro_avae.iwae import IWAE_ELBO
    from pyro_avae.runs.loading import load

__all__ = ["AVAE_ELBO", "IWAE_ELBO", "auxiliary", "compile_step", "load"]

#: Where each name is from. It is imported when it is asked for: torch and Pyro take seconds, which ``pyro-avae --help``
#: does not need and in which Ctrl-C has to work. None may be the name of a submodule, whose import would hide it.
_FROM = {
    "AVAE_ELBO": "pyro_avae.elbo",
    "IWAE_ELBO": "pyro_avae.iwae",
    "auxiliary": "pyro_avae.auxiliary_draw",
    "compile_step": "pyro_avae.compilation",
    "load": "pyro_avae.runs.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


find_siblings(__file__)
