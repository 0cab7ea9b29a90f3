"""Guides: Pyro guides, and the encoders they are made of."""

from pyro_avae.guides.amortized import AmortizedGuide
from pyro_avae.guides.avae import AVAEGuide
from pyro_avae.guides.conv_encoder import ConvEncoder
from pyro_avae.guides.encoders import LinearEncoder, MLPEncoder
from pyro_avae.guides.hamiltonian import Hamiltonian
from pyro_avae.guides.self_supervised import SelfSupervisedGuide

__all__ = [
    "AVAEGuide",
    "AmortizedGuide",
    "ConvEncoder",
    "Hamiltonian",
    "LinearEncoder",
    "MLPEncoder",
    "SelfSupervisedGuide",
]
