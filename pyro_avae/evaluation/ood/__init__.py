"""Out-of-distribution scores of a trained pair: Likelihood Regret, and what it is compared with.

All scores are larger for stranger images.
"""

from pyro_avae.evaluation.ood.baselines import (
    chain_drift,
    complexity_score,
    likelihood_ratio,
    png_bits,
    typicality,
    waic,
)
from pyro_avae.evaluation.ood.bounds import BOUNDS, sigma_points
from pyro_avae.evaluation.ood.metrics import auroc_difference, detection, roc_curve
from pyro_avae.evaluation.ood.regret import Regret, likelihood_regret
from pyro_avae.evaluation.ood.scores import LABELS, TRAIN_IMAGES, Pair, evaluate_ood, ood_scores
from pyro_avae.evaluation.ood.variants import VARIANTS, Adapted, EncoderCopies, FreePosterior, Variant

__all__ = [
    "BOUNDS",
    "LABELS",
    "TRAIN_IMAGES",
    "VARIANTS",
    "Adapted",
    "EncoderCopies",
    "FreePosterior",
    "Pair",
    "Regret",
    "Variant",
    "auroc_difference",
    "chain_drift",
    "complexity_score",
    "detection",
    "evaluate_ood",
    "likelihood_ratio",
    "likelihood_regret",
    "ood_scores",
    "png_bits",
    "roc_curve",
    "sigma_points",
    "typicality",
    "waic",
]
