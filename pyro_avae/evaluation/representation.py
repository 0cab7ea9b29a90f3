"""What of q(z|x) a probe sees: its mean, or samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from pyro_avae.evaluation.features import Classifier, posterior_mean
from pyro_avae.evaluation.pair import Guide
from pyro_avae.evaluation.sampled import SampledClassifier, posterior_sample

__all__ = ["REPRESENTATIONS", "Representation"]

_STEP_SAMPLES = 32
_VERDICT_SAMPLES = 256


@dataclass(frozen=True)
class Representation:
    """What a probe is fitted on, and how an image is classified with it.

    Attributes:
        name: in the table of representations.
        description: in words, after "on".
        features: ``(guide, x)`` to the features ``(B, L)`` that the probe is fitted on.
        classifier: ``(guide, probe)`` to the function that is attacked.
        settings: what else there is to say of it, as it is written into an evaluation.
    """

    name: str
    description: str
    features: Callable[[Guide, Tensor], Tensor]
    classifier: Callable[[Guide, nn.Module], Classifier]
    settings: Mapping[str, int] = field(default_factory=dict)


def _sampled(guide: Guide, probe: nn.Module) -> Classifier:
    return SampledClassifier(guide, probe, num_samples=_STEP_SAMPLES, verdict_samples=_VERDICT_SAMPLES)


#: The representations by name.
REPRESENTATIONS: Mapping[str, Representation] = {
    "mean": Representation("mean", "the posterior mean", posterior_mean, Classifier),
    "sample": Representation(
        "sample",
        "one posterior sample an image",
        posterior_sample,
        _sampled,
        {"samples_per_step": _STEP_SAMPLES, "samples_per_verdict": _VERDICT_SAMPLES},
    ),
}
