"""Which settings a run has when they are not given: those of its data set, then those of its method."""

from collections.abc import Mapping
from typing import Any

from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.parts import MODELS
from pyro_avae.runs.settings import Settings

__all__ = ["DATASET_DEFAULTS", "settings_for"]

#: What differs from the paper's settings for ColorMNIST, which are the defaults of :class:`Settings`.
DATASET_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    # 1437 images: 100 epochs are 2,250 steps, and Adam at 1e-4 gets nowhere in them.
    "color-digits": {"steps": 3_000, "lr": 1e-3},
    # Pixels that are 0 or 1.
    "binarized-mnist": {"likelihood": "bernoulli"},
    "caltech-silhouettes": {"likelihood": "bernoulli"},
    "omniglot": {"likelihood": "bernoulli"},
    # The paper gives no steps for CelebA. 25,000 steps are ten epochs of the official training partition (190 of the
    # 8,383 images of celeba_half); within them Adam at 1e-4 is slow. Faces of 64x64 pixels call for convolutions.
    "celeba": {"architecture": "conv", "steps": 25_000, "lr": 5e-4},
    # Rhodes & Lee 2021.
    "three-dots": {"architecture": "conv-small", "likelihood": "cross-entropy", "latent_dim": 10, "steps": 300_000},
}


def settings_for(given: Mapping[str, Any], *, inherited: Mapping[str, Any] | None = None) -> Settings:
    """The settings of a run of which some are ``given``, by name, and some ``inherited`` from the run it starts from.

    Raises:
        InputError: a value that is not allowed.

    Example:
        >>> settings = settings_for({"dataset": "color-mnist", "method": "avae"})
        >>> settings.steps, settings.lr, settings.rho, settings.hidden
        (102000, 0.0001, 0.975, (200, 200, 200, 200))
    """
    given = {**(inherited or {}), **given}
    chosen = Settings(**given)
    method = METHODS[chosen.method].defaults if chosen.method in METHODS else {}
    of_data = DATASET_DEFAULTS.get(chosen.dataset, {})
    wanted = MODELS[chosen.model].likelihood if chosen.model in MODELS else None
    of_model = {"likelihood": wanted} if wanted is not None and of_data.get("likelihood") != "bernoulli" else {}
    return Settings(**{**of_data, **of_model, **method, **given})
