"""The Autoencoding Variational Autoencoder as a Pyro model, guide and ELBO."""

from pyro_avae._checkout import find_siblings
from pyro_avae.auxiliary import auxiliary
from pyro_avae.elbo import AVAE_ELBO

__all__ = ["AVAE_ELBO", "auxiliary"]

find_siblings(__file__)
