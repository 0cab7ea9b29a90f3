"""A linear probe: multinomial logistic regression on the encoder's features."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.logistic import LogisticRegression

__all__ = ["PROBE_CS", "FitProbe", "LinearProbe", "OneClassError", "fit_probe"]

#: The inverse regularisation strengths tried on the held-out tenth; the strongest regularisation wins a tie.
PROBE_CS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)

# The logit of a class that the training set does not hold: never the largest, and finite, so that an attack's margins
# and their differences stay finite.
_ABSENT_LOGIT = -1e4


class OneClassError(InputError):
    """Labels of one class only: there is nothing to tell apart."""


class LinearProbe(nn.Module):
    """Logits ``W (f − m) / s + b`` of features f, with the training set's mean m and one common scale s.

    s² is the mean over dimensions of the training features' variances: one number, so that a dimension that carries
    little variance is not blown up to the size of one that carries much. Two classes are two logits, ``(0, w'f + b)``.

    Args:
        weight: ``(K, L)``.
        bias: ``(K,)``.
        mean: ``(L,)``, subtracted from the features.
        scale: the common scale s (a standard deviation).
        c: the inverse regularisation strength that was chosen (scikit-learn's ``C``).
        held_out_accuracy: accuracy on the held-out tenth at that C, in [0, 1].
        converged: whether the solver met its tolerance in the final fit.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        *,
        scale: float,
        c: float,
        held_out_accuracy: float,
        converged: bool,
    ) -> None:
        super().__init__()
        # Parameters that are constants: attack libraries ask a classifier's parameters which device it is on.
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.mean = nn.Parameter(mean, requires_grad=False)
        self.scale = scale
        self.c = c
        self.held_out_accuracy = held_out_accuracy
        self.converged = converged

    @property
    def num_classes(self) -> int:
        """K, the number of logits."""
        return len(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """``(B, L)`` to logits ``(B, K)``."""
        return nn.functional.linear((features - self.mean) / self.scale, self.weight, self.bias)

    def summary(self, features: str = "the posterior mean") -> dict[str, Any]:
        """What was chosen, as it is written into an evaluation; ``features`` says what the probe was fitted on."""
        return {
            "classifier": f"logistic regression (scikit-learn's objective) on {features}",
            "standardisation": "training mean, one common scale",
            "scale": self.scale,
            "C": self.c,
            "held_out_accuracy": self.held_out_accuracy,
            "converged": self.converged,
        }


class FitProbe(Protocol):
    """What fits a probe: :func:`fit_probe`, or something of one's own.

    Called with features ``(N, L)``, labels ``(N,)`` and the number of classes K; returns what maps features to logits
    ``(B, K)`` and says in ``summary`` how.
    """

    def __call__(self, features: Tensor, labels: Tensor, num_classes: int, *, seed: int) -> "LinearProbe":
        """The fitted probe."""
        ...


def fit_probe(
    features: Tensor, labels: Tensor, num_classes: int, *, cs: Sequence[float] = PROBE_CS, seed: int = 0
) -> LinearProbe:
    """Fit the probe: choose C on a held-out tenth of the training set, then fit all of it.

    The tenth is drawn by ``seed``. A class that the labels do not hold is given a logit that is never the largest.

    Args:
        features: training features ``(N, L)``.
        labels: their classes ``(N,)``, in ``0 .. num_classes − 1``.
        num_classes: K.
        cs: the values of C to try, smallest first.
        seed: seed of the held-out draw.

    Raises:
        InputError: for fewer than ten images, labels outside ``0 .. K − 1``, or features that are not finite.
        OneClassError: an :class:`InputError`, for fewer than two classes among the labels that are not held out.

    Example:
        >>> f = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> probe = fit_probe(f, (f[:, 0] > 0).long(), 2)
        >>> round(float((probe(f).argmax(-1) == (f[:, 0] > 0)).float().mean()), 1)
        1.0
    """
    x, y = _checked(features, labels, num_classes)
    mean = x.mean(0)
    # A collapsed posterior has scale 0: there is nothing to divide by.
    scale = float(x.var(0, correction=0).mean().sqrt()) or 1.0
    x = (x - mean) / scale
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(x))).to(x.device)
    held, kept = order[: len(x) // 10], order[len(x) // 10 :]
    classes = y[kept].unique()
    if len(classes) < 2:
        raise OneClassError(f"probe: expected at least two classes among the training labels, got {classes.tolist()}")
    regression = LogisticRegression(x[kept], torch.searchsorted(classes, y[kept]))
    c, held_out_accuracy = _choose(regression, x[held], y[held], classes, cs)
    every = y.unique()
    # A class that is in the held-out tenth alone has no row to go on from.
    start = regression.parameters if len(every) == len(classes) else None
    regression = LogisticRegression(x, torch.searchsorted(every, y), start=start)
    converged = regression.fit(c)
    weight, bias = _logits(regression.parameters, every, num_classes)
    return LinearProbe(
        weight.to(features.dtype),
        bias.to(features.dtype),
        mean.to(features.dtype),
        scale=scale,
        c=c,
        held_out_accuracy=held_out_accuracy,
        converged=converged,
    )


def _checked(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Features as float64 and labels beside them, or an error that says what is wrong with them."""
    if len(features) < 10:
        raise InputError(f"probe: expected at least 10 training images (a tenth is held out), got {len(features)}")
    if len(features) != len(labels):
        raise InputError(f"probe: expected one label an image, got {len(labels)} labels for {len(features)} images")
    if not bool(torch.isfinite(features).all()):
        raise InputError("probe: the encoder's means are not finite on the training set; did training diverge?")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise InputError(
            f"probe: expected labels in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}"
        )
    features = features.detach()
    x = (features.cpu() if features.device.type == "mps" else features).double()  # MPS has no double precision
    return x, labels.to(x.device)


def _choose(
    regression: LogisticRegression, held_x: Tensor, held_y: Tensor, classes: Tensor, cs: Sequence[float]
) -> tuple[float, float]:
    """The C with the highest held-out accuracy, the smallest of several, and that accuracy."""
    best_c, best_accuracy = cs[0], -1.0
    for c in cs:
        regression.fit(c)
        right = int((classes[regression.predict(held_x)] == held_y).sum())
        accuracy = right / len(held_y)
        if accuracy > best_accuracy:
            best_c, best_accuracy = c, accuracy
        if best_accuracy == 1.0:  # nothing can beat it, and a later C loses the tie
            break
    return best_c, best_accuracy


def _logits(parameters: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Weights ``(K, L)`` and biases ``(K,)`` over all K classes, those absent from training included."""
    if len(classes) == 2:  # one row, the log odds of the second class
        parameters = torch.cat([torch.zeros_like(parameters), parameters])
    weight = parameters.new_zeros(num_classes, parameters.shape[1] - 1)
    bias = parameters.new_full((num_classes,), _ABSENT_LOGIT)
    weight[classes], bias[classes] = parameters[:, :-1], parameters[:, -1]
    return weight, bias
