"""How well a pair reconstructs and explains the test images: squared error, bound, likelihood."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_avae.evaluation.bound import bound_terms
from pyro_avae.evaluation.features import batches
from pyro_avae.evaluation.information import active_units, mutual_information
from pyro_avae.evaluation.likelihood import log_likelihood, log_weights, psis_khat
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.plain import plain_number
from pyro_avae.evaluation.reconstruction import squared_error
from pyro_avae.evaluation.settings import EvaluationSettings
from pyro_avae.randomness import isolated

if TYPE_CHECKING:
    from pyro_avae.data import Split

__all__ = ["INFORMATION_IMAGES", "information", "likelihood", "reconstruction_and_bound"]

#: The mutual information is that of this many of the first test images, and at most the logarithm of it.
INFORMATION_IMAGES = 1000


def reconstruction_and_bound(model: Model, guide: Guide, test: Split, settings: EvaluationSettings) -> dict[str, Any]:
    """Squared errors and the terms of the bound, over the test images."""
    device, total = device_of(guide, model), settings.count(test)
    report = settings.stage("bound")
    squared, pixels, done = 0.0, 1, 0
    bound: dict[str, float] = {}
    with isolated(settings.seed):
        for x, _ in batches(test, batch_size=settings.batch_size, limit=settings.limit):
            x = x.to(device)
            squared += float(squared_error(model, guide, x).double().sum())
            for site, mean in bound_terms(model, guide, x).items():
                bound[site] = bound.get(site, 0.0) + mean * len(x) / total
            pixels, done = x[0].numel(), done + len(x)
            if report is not None:
                report(done, total)
    sse = squared / total
    return {
        "mse": plain_number(sse / pixels),
        "mse_255": plain_number(255.0**2 * sse / pixels),
        "sse": plain_number(sse),
        "bound": {site: plain_number(value) for site, value in bound.items()},
    }


def information(guide: Guide, model: Model, test: Split, settings: EvaluationSettings) -> dict[str, Any]:
    """Mutual information of image and latent, and the latents in use, on the first test images."""
    x, _ = test.fixed_batch(torch.arange(settings.count(test, INFORMATION_IMAGES)))
    with isolated(settings.seed):
        found = mutual_information(guide, x.to(device_of(guide, model)))
    return {
        "mutual_information": {**{k: plain_number(v) for k, v in found._asdict().items()}, "num_images": len(x)},
        "active_units": active_units(guide, x.to(device_of(guide, model))),
    }


def likelihood(model: Model, guide: Guide, test: Split, settings: EvaluationSettings) -> dict[str, Any]:
    """Importance-weighted log-likelihood and PSIS k̂ on the first test images."""
    device, total = device_of(guide, model), settings.count(test, settings.likelihood_images)
    report = settings.stage("likelihood")
    estimates: list[Tensor] = []
    khats: list[Tensor] = []
    done = 0
    with isolated(settings.seed):
        for x, _ in batches(test, batch_size=min(settings.batch_size, 100), limit=total):
            weights = log_weights(model, guide, x.to(device), settings.num_importance_samples)
            estimates.append(log_likelihood(weights).double().cpu())
            khats.append(psis_khat(weights).cpu())
            done += len(x)
            if report is not None:
                report(done, total)
    values, khat = torch.cat(estimates), torch.cat(khats)
    return {
        "log_likelihood": plain_number(values.mean()),
        "log_likelihood_standard_error": plain_number(values.std() / math.sqrt(total)),
        "log_likelihood_by_image": [plain_number(round(float(value), 3)) for value in values],
        "psis_khat": {
            "median": plain_number(khat.median()),
            "max": plain_number(khat.max()),
            "fraction_above_0.7": float((~(khat <= 0.7)).double().mean()),
        },
        "importance_sampling": {"num_images": total, "num_samples": settings.num_importance_samples},
    }
