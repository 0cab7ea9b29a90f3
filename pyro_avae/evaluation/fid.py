r"""The Fréchet distance between test images and samples of the model, in a stated set of features.

.. math:: \lVert m_1 - m_2 \rVert^2 + \mathrm{tr}\bigl(C_1 + C_2 - 2 (C_1 C_2)^{1/2}\bigr),

m and C the mean and covariance of the features of each set (Heusel et al. 2017). In Inception's features it is the FID
of the literature; in others it is the same distance of other numbers, and a value means nothing without its features.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from pyro.distributions import Normal
from torch import Tensor, nn

from pyro_avae.errors import InputError
from pyro_avae.evaluation.features import batches
from pyro_avae.evaluation.fid_features import FEATURES, Features
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.pair import Model, device_of
from pyro_avae.evaluation.plain import plain_number
from pyro_avae.randomness import isolated

if TYPE_CHECKING:
    from pyro_avae.data import ImageData

__all__ = ["fid", "frechet_distance"]


def fid(
    model: Model,
    data: "ImageData",
    *,
    features: str | Features = "classifier",
    num_samples: int = 10_000,
    noise: bool = False,
    batch_size: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """The Fréchet distance between the test images and as many samples of the model, from its prior.

    The first ``num_samples`` test images, in their fixed form, against ``num_samples`` decoded draws from
    ``model.prior`` or, where a model has none, N(0, I). Decoded images are clipped to [0, 1]. The distance is biased
    upwards, more so with fewer images: compare only numbers with the same counts and the same features.

    Args:
        model: p(x|z) p(z).
        data: the data set, of which the test images are used (and what the features need).
        features: ``"classifier"``, ``"inception"``, or :class:`~pyro_avae.evaluation.Features`: made once by
            :func:`~pyro_avae.evaluation.classifier_features`, they serve many models. Moved to the model's device.
        num_samples: draws from the prior, and test images, of which fewer are used if there are fewer.
        noise: draw from p(x|z) instead of taking its mean, as most of the literature does.
        batch_size: images at a time.
        seed: seed of the draws; the classifier behind ``"classifier"`` has seed 0 whatever this is.

    Returns:
        Plain numbers: ``fid``, ``fid_features`` (what they are), ``num_samples``, ``num_test_images``, ``noise``,
        ``seed``. A distance that is not finite is None.

    Raises:
        InputError: for unknown features, features that cannot be had for these data, a model of other images, samples
            that are not finite, or counts below 2 (``batch_size``: 1).

    Example:
        >>> from pyro_avae.data import load_dataset
        >>> from pyro_avae.models import VAE, MLPDecoder
        >>> data = load_dataset("color-digits", limit=100)
        >>> model = VAE(MLPDecoder(4, data.shape, hidden=[8]), latent_dim=4)
        >>> result = fid(model, data, num_samples=50)
        >>> result["fid"] > 0, result["num_test_images"]
        (True, 50)

    Source: M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler, S. Hochreiter, *GANs Trained by a Two Time-Scale Update
        Rule Converge to a Local Nash Equilibrium*, NeurIPS 2017.
    """
    _check(data, num_samples, batch_size)
    made = _made(features, data)
    device = device_of(model)
    count = min(num_samples, len(data.test))
    network = made.network.to(device)
    with frozen(model, network), isolated(seed), torch.no_grad():
        test = (x.to(device) for x, _ in batches(data.test, batch_size=batch_size, limit=count))
        samples = _samples(model, data.shape, num_samples, noise=noise, batch_size=batch_size)
        value = frechet_distance(network, test, samples)
    return {
        "fid": plain_number(value),
        "fid_features": made.name,
        "num_samples": num_samples,
        "num_test_images": count,
        "noise": noise,
        "seed": seed,
    }


def frechet_distance(network: nn.Module, first: Iterable[Tensor], second: Iterable[Tensor]) -> float:
    """The Fréchet distance between the features of two sets of images, by torchmetrics.

    Args:
        network: ``(B, ...)`` to features ``(B, D)``.
        first: batches of the one set, on the network's device; at least two images in all.
        second: batches of the other.

    Example:
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> round(frechet_distance(nn.Identity(), [x], [x + 2.0]), 4)
        4.0
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = None
    for batch, real in _marked(first, second):
        if metric is None:
            metric = FrechetInceptionDistance(feature=_Sized(network, batch)).to(batch.device)
        metric.update(batch, real=real)
    if metric is None:
        raise InputError("frechet_distance: expected two sets of images, got none")
    return float(metric.compute())


class _Sized(nn.Module):
    """A network that knows its number of features; torchmetrics would otherwise try it on an image of 299 pixels."""

    def __init__(self, network: nn.Module, batch: Tensor) -> None:
        super().__init__()
        self.network = network
        self.num_features = self.forward(batch[:1]).shape[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Features in double precision: means and covariances are differences of large sums."""
        features: Tensor = self.network(x)
        return features.double()


def _marked(first: Iterable[Tensor], second: Iterable[Tensor]) -> Iterator[tuple[Tensor, bool]]:
    """All batches, each with whether it belongs to the first set."""
    yield from ((batch, True) for batch in first)
    yield from ((batch, False) for batch in second)


def _check(data: object, num_samples: int, batch_size: int) -> None:
    # Only here, as in `evaluate`: whoever has a model need not have the data sets imported.
    from pyro_avae.data import ImageData

    if not isinstance(data, ImageData):
        raise InputError(f"data: expected an ImageData, such as load_dataset() gives, got {type(data).__name__}")
    if min(num_samples, len(data.test)) < 2:
        raise InputError(
            f"num_samples: expected at least 2 samples and 2 test images (a covariance needs them), got {num_samples}"
            f" and {len(data.test)}"
        )
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")


def _made(features: str | Features, data: "ImageData") -> Features:
    """The features themselves, made for the data if asked for by name."""
    if isinstance(features, Features):
        return features
    if features not in FEATURES:
        raise InputError(f"features: expected one of {', '.join(FEATURES)}, or Features, got {features!r}")
    return FEATURES[features](data)


def _samples(
    model: Model, shape: tuple[int, ...], num_samples: int, *, noise: bool, batch_size: int
) -> Iterator[Tensor]:
    """Batches of samples of the model, clipped to [0, 1], in float32."""
    like = next(model.parameters(), torch.zeros(()))
    prior = model.prior(like) if hasattr(model, "prior") else Normal(like.new_zeros(model.latent_dim), 1.0).to_event(1)
    for z in prior.expand((num_samples,)).sample().split(batch_size):
        images = model.observe(z).sample() if noise else model.decode(z)
        if images.shape[1:] != shape:
            raise InputError(
                f"model: expected images of shape {tuple(shape)} as in the data, got {tuple(images.shape[1:])}"
            )
        if not bool(images.isfinite().all()):
            raise InputError("fid: the model's samples are not finite; did training diverge?")
        yield images.clamp(0.0, 1.0).float()
