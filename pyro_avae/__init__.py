"""The Autoencoding Variational Autoencoder as a Pyro model, guide and ELBO."""

from pathlib import Path

from pyro_avae.auxiliary import auxiliary
from pyro_avae.elbo import AVAE_ELBO

__all__ = ["AVAE_ELBO", "auxiliary"]

# The sources of ``pyro_avae.models``, ``.guides`` and ``.experiments`` lie beside this folder in a checkout.
# After a plain install, this folder shadows the installed package when Python starts in the checkout's root,
# and the three would be missing; the checkout's own root stands in for them.
_root = Path(__file__).resolve().parent.parent
if (_root / "pyproject.toml").is_file() and (_root / "guides" / "amortized.py").is_file():
    __path__.append(str(_root))
del _root
