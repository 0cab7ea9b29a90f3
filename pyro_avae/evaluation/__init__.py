"""What a trained pair is worth: probes, attacks, reconstruction, bound, likelihood.

Everything here is a function of a model, a guide and tensors; :func:`evaluate` runs them all.
"""

from pyro_avae.evaluation.attacks import PGDResult, pgd
from pyro_avae.evaluation.autoattack import autoattack
from pyro_avae.evaluation.ball import BALLS, L2, LINF, Ball
from pyro_avae.evaluation.baselines import noise, one_step
from pyro_avae.evaluation.bound import bound_terms
from pyro_avae.evaluation.cleaning import cleaning_auc
from pyro_avae.evaluation.count_sketch import CountSketch
from pyro_avae.evaluation.disentanglement import disentanglement
from pyro_avae.evaluation.evaluate import evaluate
from pyro_avae.evaluation.features import Classifier, encode_split, posterior_mean
from pyro_avae.evaluation.fid import fid, frechet_distance
from pyro_avae.evaluation.fid_features import FEATURES, Features, classifier_features, inception_features
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.influence import Influence, influence
from pyro_avae.evaluation.intervals import interquartile_interval, interquartile_mean, mean_and_standard_error
from pyro_avae.evaluation.latent_attack import latent_attack, latent_pgd, symmetric_kl
from pyro_avae.evaluation.likelihood import log_likelihood, log_weights, psis_khat
from pyro_avae.evaluation.ms_ssim import ms_ssim, ms_ssim_settings
from pyro_avae.evaluation.per_sample import PerSampleGradients
from pyro_avae.evaluation.probe import LinearProbe, fit_probe
from pyro_avae.evaluation.reconstruction import reconstruct, squared_error
from pyro_avae.evaluation.representation import REPRESENTATIONS
from pyro_avae.evaluation.robustness import robust_accuracy
from pyro_avae.evaluation.robustness_margin import robustness_margin
from pyro_avae.evaluation.sampled import SampledClassifier
from pyro_avae.evaluation.settings import ATTACKS
from pyro_avae.evaluation.stages import Stage, tracin_weights

__all__ = [
    "ATTACKS",
    "BALLS",
    "FEATURES",
    "L2",
    "LINF",
    "REPRESENTATIONS",
    "Ball",
    "Classifier",
    "CountSketch",
    "Features",
    "Influence",
    "LinearProbe",
    "PGDResult",
    "PerSampleGradients",
    "SampledClassifier",
    "Stage",
    "autoattack",
    "bound_terms",
    "classifier_features",
    "cleaning_auc",
    "disentanglement",
    "encode_split",
    "evaluate",
    "fid",
    "fit_probe",
    "frechet_distance",
    "frozen",
    "inception_features",
    "influence",
    "interquartile_interval",
    "interquartile_mean",
    "latent_attack",
    "latent_pgd",
    "log_likelihood",
    "log_weights",
    "mean_and_standard_error",
    "ms_ssim",
    "ms_ssim_settings",
    "noise",
    "one_step",
    "pgd",
    "posterior_mean",
    "psis_khat",
    "reconstruct",
    "robust_accuracy",
    "robustness_margin",
    "squared_error",
    "symmetric_kl",
    "tracin_weights",
]
