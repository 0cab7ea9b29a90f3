"""The Autoencoding Variational Autoencoder as a Pyro model, guide and ELBO."""

from typing import TYPE_CHECKING, Any

from pyro_avae._checkout import find_siblings
from pyro_avae.auxiliary import auxiliary
from pyro_avae.elbo import AVAE_ELBO

if TYPE_CHECKING:
    from pyro_avae.loading import load

__all__ = ["AVAE_ELBO", "auxiliary", "load"]

find_siblings(__file__)


def __getattr__(name: str) -> Any:
    """``load``, imported when it is first asked for: it brings scikit-learn along, through the data sets."""
    if name == "load":
        from pyro_avae.loading import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
