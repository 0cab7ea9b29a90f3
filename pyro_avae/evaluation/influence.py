"""Which training images made the model what it is: VAE-TracIn."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.evaluation.count_sketch import CountSketch
from pyro_avae.evaluation.pair import device_of
from pyro_avae.evaluation.per_sample import LossGradients, PerSampleGradients, images_at_once
from pyro_avae.evaluation.stages import Stage
from pyro_avae.randomness import stream_seed

if TYPE_CHECKING:
    from pyro_avae.data import Split
    from pyro_avae.evaluation.settings import Progress

__all__ = ["Influence", "influence"]

log = logging.getLogger(__name__)

#: Gradients ``(B, P)`` to what of them is compared.
Project = Callable[[Tensor], Tensor]

#: Numbers of gradients that are kept while training images pass by: 1 GiB of float32.
_MOST_KEPT = 2**28


@dataclass(frozen=True, eq=False)
class Influence:
    """What :func:`influence` gives back, on the CPU, in float64.

    Attributes:
        self_influence: of each training image on itself, unbiased, so that noise can take it below 0, ``(N,)``.
        influence: of each training image on each test image, ``(N, T)``; above 0: training on it lowered the test
            image's loss (a proponent), below 0: raised it (an opponent).
        loss: of each training image at the last stage, nats, ``(N,)``.
        steps: of the stages.
        weights: of the stages; both are empty where there were none, and the one weight was 1.
        num_samples: posterior samples m of each image at each stage.
        projection: K, None where no gradient was projected.
        note: what the reader has to know, or None.
    """

    self_influence: Tensor
    influence: Tensor
    loss: Tensor
    steps: Sequence[int]
    weights: Sequence[float]
    num_samples: int
    projection: int | None
    note: str | None

    def most_self_influential(self, count: int) -> Tensor:
        """Numbers of the training images, the most self-influential first: outliers of the training set."""
        return self.self_influence.argsort(descending=True, stable=True)[:count]

    def proponents(self, test: int, count: int) -> Tensor:
        """Numbers of the training images that lowered a test image's loss most, the strongest first."""
        return self.influence[:, test].argsort(descending=True, stable=True)[:count]

    def opponents(self, test: int, count: int) -> Tensor:
        """Numbers of the training images that raised a test image's loss most, the strongest first."""
        return self.influence[:, test].argsort(stable=True)[:count]


def influence(
    model: nn.Module,
    guide: nn.Module,
    train: Tensor | Split,
    test: Tensor | Split | None = None,
    *,
    elbo: ELBO | None = None,
    stages: Sequence[Stage] = (),
    num_samples: int = 16,
    projection: int | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Influence:
    r"""How much each training image lowered the loss of a test image, and its own: VAE-TracIn.

    .. math:: \mathrm{TracIn}(x_i, y) = \sum_c w_c\, \langle g_c(x_i), g_c(y) \rangle, \qquad
        g_c(x) = \nabla_\theta \frac1m \sum_{j \le m} -\mathrm{ELBO}(x, \epsilon_j; \theta_c)

    over stages c of training, with respect to all parameters of decoder and encoder. One step of SGD on :math:`x_i`
    alone lowers the loss of y by its learning rate times the inner product, to first order; for :math:`w_c` see
    :func:`~pyro_avae.evaluation.tracin_weights`. Training by Adam moves the parameters otherwise: the weights are then
    those of the SGD that it is compared with. Gradients are those that training follows; where a method cuts them (the
    AVAE holds the decoder of a view constant), they are not quite the derivative of its loss.

    Both gradients have noise of their own. Self-influence is the inner product of the gradients of two halves of the m
    draws, :math:`\langle g_{m/2}, g'_{m/2} \rangle`, whose expectation is :math:`\|\mathbb E g\|^2`; the square
    of one estimate, as in the authors' code, is too large by :math:`\mathrm{tr}\,\mathrm{Cov}(g)/m`.

    Model and guide are in eval mode meanwhile, and afterwards as before. Any pair and ELBO will do whose loss is a sum
    over images.

    Args:
        model: a Pyro model that is a module.
        guide: a Pyro guide that is a module.
        train: N images ``(N, *event)``, or a ``Split``, of which each image has its fixed form.
        test: T images likewise; None for self-influence alone.
        elbo: what was trained with; :class:`~pyro_avae.AVAE_ELBO` by default.
        stages: points of training; where there are none, the parameters as they are, with weight 1.
        num_samples: m, an even number.
        projection: K, to compare gradients by :class:`~pyro_avae.evaluation.count_sketch.CountSketch` of K numbers
            where those of all test images would not fit into memory. Self-influence is never projected.
        seed: of posterior samples and projection. An image's samples depend on it, the stage and the image's place.
        batch_size: images whose gradients are held at once; as many as usually fit by default.
        progress: called with ``("influence", images done, images in all)``, every stage counted.

    Raises:
        InputError: options out of range, images of different shapes, gradients of test images that do not fit into
            memory without a projection, or a pair that cannot be traced.

    Example:
        >>> from pyro_avae.guides import AmortizedGuide, LinearEncoder
        >>> from pyro_avae.models import VAE
        >>> _ = torch.manual_seed(0)
        >>> model, guide = VAE(nn.Linear(1, 4), latent_dim=1), AmortizedGuide(LinearEncoder(4, 1))
        >>> x = torch.cat([torch.randn(20, 4), torch.full((1, 4), 9.0)])  # the last one is an outlier
        >>> found = influence(model, guide, x, x[:2])
        >>> found.most_self_influential(1), found.influence.shape
        (tensor([20]), torch.Size([21, 2]))

    Source: Kong and Chaudhuri, *Understanding Instance-based Interpretability of Variational Auto-Encoders*,
        NeurIPS 2021 (arXiv 2105.14203); Pruthi et al., *Estimating Training Data Influence by Tracing Gradient
        Descent*, NeurIPS 2020.
    """
    _check(train, test, num_samples, batch_size)
    points = list(stages) or [Stage(0, 1.0, lambda model, guide: None)]
    with _eval_mode_and_back(model, guide):
        device = device_of(model, guide)
        of = PerSampleGradients(
            model, guide, elbo or AVAE_ELBO(), _images(train, range(1), device)[0], draws=num_samples // 2
        )
        project = _projection(of, projection, 0 if test is None else len(test), seed=seed, device=device)
        size = batch_size or images_at_once(of.size, device)
        own, loss = (torch.zeros(len(train), dtype=torch.float64) for _ in range(2))
        matrix = torch.zeros(len(train), 0 if test is None else len(test), dtype=torch.float64)
        for number, stage in enumerate(points):
            stage.load(model, guide)
            halves = _Halves(of, seed=seed, stage=stage.step, device=device)
            for rows, found in _at_stage(halves, train, test, project, size):
                place = slice(rows.start, rows.stop)
                own[place] += stage.weight * found.own.cpu().double()
                loss[place] = found.loss.cpu().double()
                matrix[place] += stage.weight * found.on_tests.cpu().double()
                if progress is not None:
                    progress("influence", number * len(train) + rows.stop, len(points) * len(train))
    return Influence(
        self_influence=own,
        influence=matrix,
        loss=loss,
        steps=[stage.step for stage in stages],
        weights=[stage.weight for stage in stages],
        num_samples=num_samples,
        projection=projection,
        note=_note(len(stages)),
    )


class _Halves:
    """Gradients of images at one stage, from two independent halves of the draws."""

    def __init__(self, of: PerSampleGradients, *, seed: int, stage: int, device: torch.device) -> None:
        self._of, self._device = of, device
        # Training images and test images draw apart: one may be the other.
        self._train, self._test = (
            [NoiseSource(stream_seed(seed, f"influence-{role}-{half}", stage)) for half in range(2)]
            for role in ("train", "test")
        )

    def __call__(self, images: Tensor | Split, rows: range) -> list[LossGradients]:
        """Those of training images, each half by itself."""
        return self._each(images, rows, self._train)

    def mean(self, images: Tensor | Split, rows: range) -> Tensor:
        """Those of test images, the mean of both halves."""
        one, other = self._each(images, rows, self._test)
        return (one.gradients + other.gradients) / 2

    def _each(self, images: Tensor | Split, rows: range, sources: Sequence[NoiseSource]) -> list[LossGradients]:
        x = _images(images, rows, self._device)
        return [self._of(x, self._of.noise(source, rows)) for source in sources]


class _Products(NamedTuple):
    """Inner products of some training images' gradients: of their halves, and with those of the test images."""

    own: Tensor
    loss: Tensor
    on_tests: Tensor


def _at_stage(
    halves: _Halves, train: Tensor | Split, test: Tensor | Split | None, project: Project, size: int
) -> Iterator[tuple[range, _Products]]:
    """What one stage adds, ``size`` training images at a time."""
    kept = [] if test is None else [project(halves.mean(test, rows)) for rows in _chunks(len(test), size)]
    for rows in _chunks(len(train), size):
        one, other = halves(train, rows)
        on_tests = one.loss.new_zeros(len(rows), 0)
        if kept:
            mean = project((one.gradients + other.gradients) / 2)
            on_tests = torch.cat([mean @ each.T for each in kept], 1)
        yield rows, _Products((one.gradients * other.gradients).sum(1), (one.loss + other.loss) / 2, on_tests)


def _projection(of: PerSampleGradients, dim: int | None, kept: int, *, seed: int, device: torch.device) -> Project:
    if kept * (dim or of.size) > _MOST_KEPT:
        raise InputError(
            f"projection: the gradients of {kept} test images, {dim or of.size} numbers each, are too many to keep;"
            f" give fewer test images, or a projection to at most {_MOST_KEPT // kept} numbers"
        )
    if dim is None:
        return lambda gradients: gradients
    return CountSketch(of.size, dim, seed=stream_seed(seed, "projection"), device=device)


def _chunks(count: int, size: int) -> Iterator[range]:
    for start in range(0, count, size):
        yield range(start, min(start + size, count))


def _images(images: Tensor | Split, rows: range, device: torch.device) -> Tensor:
    if isinstance(images, Tensor):
        return images[rows.start : rows.stop].to(device)
    return images.fixed_batch(torch.arange(rows.start, rows.stop))[0].to(device)


def _check(train: Tensor | Split, test: Tensor | Split | None, num_samples: int, batch_size: int | None) -> None:
    if isinstance(num_samples, bool) or not isinstance(num_samples, int) or num_samples < 2 or num_samples % 2:
        raise InputError(
            f"num_samples: expected an even number of at least 2, for two independent halves, got {num_samples!r}"
        )
    if batch_size is not None and batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    for name, images in (("train", train), ("test", test)):
        if images is not None and not len(images):
            raise InputError(f"{name}: expected at least one image, got none")
    if test is not None and _shape(test) != _shape(train):
        raise InputError(f"test: expected images of the training images' shape {_shape(train)}, got {_shape(test)}")


def _shape(images: Tensor | Split) -> tuple[int, ...]:
    """The shape of one image."""
    return tuple(images.shape[1:]) if isinstance(images, Tensor) else images.shape


def _note(count: int) -> str | None:
    """What fewer than two stages mean."""
    if count >= 2:
        return None
    found = "1 checkpoint" if count else "no checkpoint"
    note = f"{found} of training: influences are those at its parameters alone, not summed over training"
    log.warning("%s", note)
    return note


@contextmanager
def _eval_mode_and_back(*modules: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards modes, parameters and buffers as before."""
    modes = {part: part.training for module in modules for part in module.modules()}
    before = [copy.deepcopy(module.state_dict()) for module in modules]
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for module, tensors in zip(modules, before, strict=True):
            module.load_state_dict(tensors)
        for part, mode in modes.items():
            part.training = mode
