"""The Autoencoding Variational Autoencoder as a Pyro model, guide and ELBO."""

from pyro_avae._checkout import find_siblings
from pyro_avae.auxiliary import auxiliary
from pyro_avae.compilation import compile_step
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.runs.loading import load

__all__ = ["AVAE_ELBO", "IWAE_ELBO", "auxiliary", "compile_step", "load"]

find_siblings(__file__)
