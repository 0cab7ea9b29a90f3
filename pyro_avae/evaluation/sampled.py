"""A probe on samples of q(z|x) instead of its mean."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.features import Classifier
from pyro_avae.evaluation.pair import Guide

__all__ = ["SampledClassifier", "posterior_sample"]


def posterior_sample(guide: Guide, x: Tensor) -> Tensor:
    """One draw from q(z|x) an image, ``x (B, *event)`` to ``(B, L)``, from torch's global generator."""
    return cast(Tensor, guide.posterior(x).sample())


class SampledClassifier(Classifier):
    r"""Class probabilities averaged over samples of the posterior, as logits.

    .. math:: l_k(x) = \log \frac1S \sum_{s=1}^S \operatorname{softmax}_k(\text{probe}(z_s)), \qquad z_s \sim q(z|x).

    Every call draws S samples anew from torch's global generator, so that an attack which steps along the gradient
    steps along :math:`\nabla_x E_q[p_k(z)]` in expectation (expectation over transformation, Athalye et al. 2018). The
    samples are reparameterised: the gradient flows through the posterior's mean and through its scale.

    Args:
        guide: q(z|x), whose ``posterior(x)`` has ``rsample``.
        probe: ``(..., L)`` to logits ``(..., K)``.
        num_samples: S of :meth:`forward`, and so of every gradient.
        verdict_samples: S of :meth:`predict`. An attack looks at many points and keeps the worst; with few samples that
            would be the unluckiest draw.

    Raises:
        InputError: for fewer than one sample.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> _ = torch.manual_seed(0)
        >>> guide = AmortizedGuide(MLPEncoder((1, 2, 2), 3, hidden=[4]))
        >>> classifier = SampledClassifier(guide, nn.Linear(3, 5), num_samples=7)
        >>> logits = classifier(torch.rand(2, 1, 2, 2))
        >>> logits.shape, torch.allclose(logits.exp().sum(-1), torch.ones(2))
        (torch.Size([2, 5]), True)
    """

    is_random = True

    def __init__(self, guide: Guide, probe: nn.Module, *, num_samples: int = 32, verdict_samples: int = 256) -> None:
        super().__init__(guide, probe)
        for name, value in (("num_samples", num_samples), ("verdict_samples", verdict_samples)):
            if value < 1:
                raise InputError(f"{name}: expected at least 1, got {value}")
        self.num_samples = num_samples
        self.verdict_samples = verdict_samples

    def forward(self, x: Tensor) -> Tensor:
        """Logarithms of the averaged probabilities, ``(B, K)``, over fresh samples."""
        return self._average(x, self.num_samples)

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class, ``(B,)``, over ``verdict_samples`` fresh samples."""
        return self._average(x, self.verdict_samples).argmax(-1)

    def _average(self, x: Tensor, count: int) -> Tensor:
        z: Tensor = cast(Guide, self.guide).posterior(x).rsample((count,))
        log_probabilities: Tensor = self.probe(z).log_softmax(-1)
        return log_probabilities.logsumexp(0) - math.log(count)
