"""The published tables: Table 1 (ColorMNIST) and Table 2 (CelebA), row by row.

Source: Cemgil, Ghaisas, Dvijotham, Gowal, Kohli, *The Autoencoding Variational Autoencoder*, NeurIPS 2020
(arXiv 2012.03715), as printed in a reading group's slides on it; the row SE^20 of Table 2 is copied there from
Cemgil et al., *Adversarially Robust Representations with Smooth Encoders*, ICLR 2020.

The unit of the column that the paper calls MSE is not printed. Our reading, not confirmed: the negative Gaussian
log-likelihood of an image at ν = 0.5, (D/2) log π + SSE, whose constant is 1346.2 nats for 3x28x28 pixels and
7033.2 for 3x64x64: every printed number is above it, by the squared error of a fair reconstruction (23.0 for the
VAE, 25.7 for the AVAE on ColorMNIST). ``docs/reproduction.md`` has the other reading.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CELEBA", "COLOR_MNIST", "PaperRow", "gaussian_nll"]


@dataclass(frozen=True)
class PaperRow:
    """One row of a published table.

    Attributes:
        model: its name there.
        accuracy: in [0, 1], by task and radius.
        time: training time, the VAE's being 1.
        mse: as printed; see the module.
        fid: as printed, the features not named.
    """

    model: str
    accuracy: Mapping[str, Mapping[str, float]]
    time: float
    mse: float | None
    fid: float | None

    def to_json(self) -> dict[str, Any]:
        """The row as plain values."""
        accuracy = {task: dict(values) for task, values in self.accuracy.items()}
        return {"model": self.model, "accuracy": accuracy, "time": self.time, "mse": self.mse, "fid": self.fid}


def gaussian_nll(sse: float, pixels: int, *, obs_variance: float = 0.5) -> float:
    r"""The negative log-likelihood of an image, :math:`\frac D2 \log(2\pi\nu) + \mathrm{SSE} / 2\nu`, in nats.

    Args:
        sse: squared error of the reconstruction, summed over the image's pixels on [0, 1].
        pixels: D, channels included.
        obs_variance: ν.

    Example:
        >>> round(gaussian_nll(23.0, 3 * 28 * 28), 1), round(gaussian_nll(243.4, 3 * 64 * 64), 1)
        (1369.2, 7276.6)
    """
    return pixels / 2 * math.log(2 * math.pi * obs_variance) + sse / (2 * obs_variance)


def _color(
    model: str, digit: tuple[float, ...], color: tuple[float, ...], time: float, mse: float, fid: float
) -> PaperRow:
    return PaperRow(model, _by_radius({"digit": digit, "color": color}), time, mse, fid)


#: Our names of the tasks, in the order of Table 2.
_CELEBA_TASKS = ("Bald", "Mustache", "Wearing_Necklace", "Eyeglasses", "Smiling", "Wearing_Lipstick")


def _celeba(
    model: str,
    clean: tuple[float, ...],
    attacked: tuple[float, ...],
    time: float,
    mse: float | None,
    fid: float | None,
) -> PaperRow:
    accuracy = dict(zip(_CELEBA_TASKS, zip(clean, attacked, strict=True), strict=True))
    return PaperRow(model, _by_radius(accuracy), time, mse, fid)


def _by_radius(accuracy: Mapping[str, tuple[float, ...]]) -> dict[str, dict[str, float]]:
    """Per cent at ε = 0, 0.1 and so on, as ``evaluation.json`` has accuracies."""
    return {
        task: {str(place / 10): round(value / 100, 4) for place, value in enumerate(values)}
        for task, values in accuracy.items()
    }


#: Table 1, by the name of our row.
COLOR_MNIST: Mapping[str, PaperRow] = {
    "vae": _color("VAE", (93.8, 5.8, 0.0), (100.0, 19.9, 2.0), 1.0, 1369.2, 12.44),
    "se-0.1": _color("SE^5_0.1", (94.3, 89.6, 1.8), (100.0, 100.0, 21.8), 4.0, 1372.5, 13.01),
    "se-0.2": _color("SE^5_0.2", (95.7, 92.6, 87.3), (100.0, 99.9, 99.9), 4.0, 1374.9, 11.72),
    "avae": _color("AVAE", (97.3, 88.1, 54.8), (100.0, 99.8, 87.7), 1.5, 1371.9, 15.46),
    "se-avae-0.1": _color("SE_0.1-AVAE", (97.4, 93.6, 24.5), (100.0, 100.0, 60.0), 4.7, 1373.3, 13.90),
    "se-avae-0.2": _color("SE_0.2-AVAE", (97.6, 94.2, 79.8), (100.0, 100.0, 83.2), 4.7, 1374.3, 13.89),
    "avae-ss": _color("AVAE-SS", (94.1, 72.8, 20.8), (100.0, 99.6, 56.8), 1.5, 1379.3, 12.44),
}

#: Table 2, by the name of our row; it has no VAE.
CELEBA: Mapping[str, PaperRow] = {
    "avae": _celeba(
        "AVAE", (97.9, 96.1, 86.1, 95.4, 77.7, 81.0), (85.2, 91.5, 78.4, 68.9, 3.6, 7.3), 2.2, 7276.6, 97.92
    ),
    "se-5": _celeba(
        "SE^5", (97.9, 95.0, 87.8, 95.9, 87.0, 83.9), (72.0, 69.5, 56.7, 20.3, 3.1, 2.0), 3.1, 7208.8, 98.00
    ),
    "se-20": _celeba(
        "SE^20", (97.4, 95.7, 88.0, 95.7, 85.7, 80.3), (86.5, 84.4, 78.9, 33.0, 1.1, 0.6), 7.8, None, None
    ),
    "se-avae-5": _celeba(
        "SE^5-AVAE", (97.9, 96.0, 86.1, 95.4, 77.9, 80.2), (87.0, 92.3, 80.3, 67.5, 6.3, 11.5), 4.3, 7269.2, 109.4
    ),
    "avae-ss": _celeba(
        "AVAE-SS", (97.8, 94.9, 88.0, 94.4, 81.4, 80.7), (70.0, 74.3, 59.7, 57.1, 0.9, 0.9), 2.2, 7347.3, 99.8
    ),
}
