"""What a trained pair is worth: probes, attacks, reconstruction, bound, likelihood.

Everything here is a function of a model, a guide and tensors; :func:`evaluate` runs them all.
"""

from pyro_avae.evaluation.attacks import PGDResult, pgd
from pyro_avae.evaluation.autoattack import autoattack
from pyro_avae.evaluation.bound import bound_terms
from pyro_avae.evaluation.evaluate import ATTACKS, evaluate
from pyro_avae.evaluation.features import Classifier, encode_split, posterior_mean
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.likelihood import log_likelihood, log_weights, psis_khat
from pyro_avae.evaluation.probe import LinearProbe, fit_probe
from pyro_avae.evaluation.reconstruction import reconstruct, squared_error
from pyro_avae.evaluation.robustness import robust_accuracy

__all__ = [
    "ATTACKS",
    "Classifier",
    "LinearProbe",
    "PGDResult",
    "autoattack",
    "bound_terms",
    "encode_split",
    "evaluate",
    "fit_probe",
    "frozen",
    "log_likelihood",
    "log_weights",
    "pgd",
    "posterior_mean",
    "psis_khat",
    "reconstruct",
    "robust_accuracy",
    "squared_error",
]
