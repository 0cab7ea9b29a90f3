"""Targets: Pyro models, and the decoders and likelihoods they are made of."""

from pyro_avae.models.conv_decoder import ConvDecoder
from pyro_avae.models.decoders import MLPDecoder
from pyro_avae.models.extended import ExtendedVAE
from pyro_avae.models.likelihoods import Gaussian, bernoulli, continuous_bernoulli, cross_entropy
from pyro_avae.models.ppca import PPCA
from pyro_avae.models.self_supervised import SelfSupervisedVAE
from pyro_avae.models.vae import VAE

__all__ = [
    "PPCA",
    "VAE",
    "ConvDecoder",
    "ExtendedVAE",
    "Gaussian",
    "MLPDecoder",
    "SelfSupervisedVAE",
    "bernoulli",
    "continuous_bernoulli",
    "cross_entropy",
]
