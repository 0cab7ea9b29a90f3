"""Targets: Pyro models, and the decoders and likelihoods they are made of."""

from pyro_avae.models.categorical_pixels import CategoricalPixels, categorical
from pyro_avae.models.conv_decoder import ConvDecoder
from pyro_avae.models.decoders import MLPDecoder
from pyro_avae.models.extended import ExtendedVAE
from pyro_avae.models.flow_prior import FlowPrior
from pyro_avae.models.likelihoods import Gaussian, bernoulli, continuous_bernoulli, cross_entropy
from pyro_avae.models.logistic_mixture import DiscretizedLogisticMixture, LogisticMixture
from pyro_avae.models.lossy import LossyDecoder
from pyro_avae.models.ppca import PPCA
from pyro_avae.models.self_supervised import SelfSupervisedVAE
from pyro_avae.models.vae import VAE

__all__ = [
    "PPCA",
    "VAE",
    "CategoricalPixels",
    "ConvDecoder",
    "DiscretizedLogisticMixture",
    "ExtendedVAE",
    "FlowPrior",
    "Gaussian",
    "LogisticMixture",
    "LossyDecoder",
    "MLPDecoder",
    "SelfSupervisedVAE",
    "bernoulli",
    "categorical",
    "continuous_bernoulli",
    "cross_entropy",
]
