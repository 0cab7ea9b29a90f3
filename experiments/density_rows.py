"""The rows of the density comparison, and the negative log-likelihoods that were published on the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyro_avae.experiments.rows import Row

__all__ = ["DENSITY_DATASETS", "DENSITY_ROWS", "PUBLISHED_NLL", "PublishedNLL"]

DENSITY_DATASETS = ("binarized-mnist", "omniglot", "caltech-silhouettes")

#: Five importance samples, not the usual fifty, which take ten times the decoding. The free bits of the VLAE
#: are its paper's 0.01 nats per pixel.
DENSITY_ROWS: Sequence[Row] = (
    Row("vae", "VAE", "vae"),
    Row("iwae", "IWAE, k = 5", "iwae", {"num_particles": 5}),
    Row("hvae", "HVAE, 3 leapfrog steps", "vae", {"guide": "hamiltonian", "leapfrog_steps": 3}),
    Row("vlae", "VLAE, window 7x4, flow prior", "vae", {"model": "lossy", "prior": "flow", "free_bits": 7.84}),
    Row("avae", "AVAE", "avae"),
)


@dataclass(frozen=True)
class PublishedNLL:
    """A published number.

    Attributes:
        model: its name there.
        nll: test images, nats per image.
        bound: whether it is an upper bound, printed with a "<" sign.
    """

    model: str
    nll: float
    bound: bool = False

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"model": self.model, "nll": self.nll, "bound": self.bound}


#: As printed by Chen et al., *Variational Lossy Autoencoder*, ICLR 2017 (arXiv 1611.02731), by data set: most are
#: quoted there from others. Its Omniglot and silhouettes are in the splits of Burda et al. and of Marlin et al.
PUBLISHED_NLL: Mapping[str, Sequence[PublishedNLL]] = {
    "binarized-mnist": (
        PublishedNLL("normalising flows", 85.10),
        PublishedNLL("discrete VAE", 81.01),
        PublishedNLL("DRAW", 80.97, bound=True),
        PublishedNLL("IAF VAE", 79.88),
        PublishedNLL("AF VAE", 79.30),
        PublishedNLL("PixelRNN", 79.20),
        PublishedNLL("VLAE", 79.03),
    ),
    "omniglot": (
        PublishedNLL("VAE", 106.31),
        PublishedNLL("IWAE", 103.38),
        PublishedNLL("RBM", 100.46),
        PublishedNLL("DRAW", 96.50, bound=True),
        PublishedNLL("unconditional decoder", 95.02),
        PublishedNLL("ConvDRAW", 91.00, bound=True),
        PublishedNLL("VLAE", 90.98),
        PublishedNLL("VLAE, fine-tuned", 89.83),
    ),
    "caltech-silhouettes": (
        PublishedNLL("RWS SBN", 113.3),
        PublishedNLL("RBM", 107.8),
        PublishedNLL("NAIS NADE", 100.0),
        PublishedNLL("discrete VAE", 97.6),
        PublishedNLL("unconditional decoder", 89.26),
        PublishedNLL("SpARN", 88.48),
        PublishedNLL("VLAE", 77.36),
    ),
}
