"""Everything that is measured on a trained pair, as the content of ``evaluation.json``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyro_avae.errors import InputError, shown_value
from pyro_avae.evaluation.autoattack import AUTOATTACK_IMAGES, autoattack_parts, autoattack_settings
from pyro_avae.evaluation.baselines import NOISE_DRAWS
from pyro_avae.evaluation.features import images_at_a_time
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.pair import Guide, Model, device_of
from pyro_avae.evaluation.probe import FitProbe, fit_probe
from pyro_avae.evaluation.quality import information, likelihood, reconstruction_and_bound
from pyro_avae.evaluation.representation import REPRESENTATIONS
from pyro_avae.evaluation.settings import LIKELIHOOD_IMAGES, EvaluationSettings, Progress
from pyro_avae.evaluation.tasks import measure_tasks

if TYPE_CHECKING:
    from pyro_avae.data import ImageData

__all__ = ["Progress", "evaluate"]


def evaluate(
    model: Model,
    guide: Guide,
    data: ImageData,
    *,
    epsilons: Sequence[float] = (0.0, 0.1, 0.2),
    epsilons_l2: Sequence[float] = (),
    attack: str = "pgd",
    steps: int = 40,
    restarts: int = 4,
    transfer_from: tuple[Model, Guide] | None = None,
    masking_epsilon: float = 0.5,
    representation: str = "mean",
    tasks: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int | None = None,
    num_importance_samples: int = 256,
    likelihood_images: int = LIKELIHOOD_IMAGES,
    seed: int = 0,
    fit: FitProbe = fit_probe,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a trained pair on the test set: robustness, reconstruction, bound, likelihood.

    The probes are fitted on the whole training set, in its fixed form. The pair is put into eval mode and back, and
    torch's random state is left as it was; one seed gives one result.

    Args:
        model: p(x|z) p(z), with ``decode`` and ``observe``.
        guide: q(z|x), with ``encode`` and ``posterior``.
        data: images in [0, 1] with the labels of each task.
        epsilons: L∞ radii in [0, 1].
        epsilons_l2: L2 radii, of the whole image with pixels in [0, 1].
        attack: ``"pgd"``, or ``"autoattack"`` to run AutoAttack beside it.
        steps: steps of PGD.
        restarts: starts of PGD, of which the worst counts; see :func:`~pyro_avae.evaluation.attacks.pgd`.
        transfer_from: another pair, trained on the same kind of images; images that PGD makes against its own probe
            are tried on this pair.
        masking_epsilon: L∞ radius at which a classifier has to fall to chance, on the first 500 test images at most;
            see :mod:`~pyro_avae.evaluation.gradient_masking`.
        representation: what the probe sees: ``"mean"`` of q(z|x), or ``"sample"``, class probabilities averaged over
            samples; see :class:`~pyro_avae.evaluation.sampled.SampledClassifier`.
        tasks: names of the tasks to evaluate; by default all.
        limit: use only the first ``limit`` test images; AutoAttack takes 1,000 where there is no limit.
        batch_size: images at a time; by default 500 on a CPU and 2,000 elsewhere.
        num_importance_samples: S of the importance-weighted log-likelihood.
        likelihood_images: how many of the first test images that is estimated on.
        seed: seed of every random number used here.
        fit: what fits a probe to the training set; :class:`~pyro_avae.runs.StoredProbes` remembers those it fitted.
        progress: called with ``(stage, done, total)``.

    Returns:
        A dictionary of plain numbers, strings, lists and dictionaries, ready for JSON. By task

        - ``accuracy`` under PGD by ``str(epsilon)``, and beside it ``accuracy_one_step`` (one gradient step),
          ``accuracy_noise`` (the worst of ten random points), ``accuracy_transfer`` and ``accuracy_autoattack`` where
          they ran. Each has ``_l2`` appended for L2 radii, and ``balanced_`` put before it for the mean of the classes'
          recalls;
        - ``gradient_masking``: ``passed``, which is ``at_or_below_chance`` and nothing in ``stronger_than_pgd``, with
          the numbers behind it;
        - ``probe``, and ``majority``, the share of the most frequent test class.

        ``tasks_skipped`` says why a task was left out. ``mse`` is per pixel on [0, 1], ``mse_255`` the same on 0-255,
        ``sse`` the sum over pixels per image on [0, 1], all of the posterior mean's reconstruction. ``bound`` holds
        each term and their ``total``, ``log_likelihood`` its importance-weighted estimate: means per image, in nats,
        with ``log_likelihood_standard_error`` over images and the estimate of each, ``log_likelihood_by_image``.
        ``psis_khat`` says whether the latter can be trusted. ``mutual_information`` of image and latent, on the first
        images, in nats, with what it can be at most; ``active_units`` counts latents whose mean moves. A number that is
        not finite is None.

    Raises:
        InputError: for data that are no ``ImageData``, an unknown attack, representation or task, an impossible
            radius, counts below their minimum, a missing attack library, or data that a probe cannot be fitted to.

    Example:
        >>> import torch
        >>> from pyro_avae.data import load_dataset
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> from pyro_avae.models import VAE, MLPDecoder
        >>> _ = torch.manual_seed(0)
        >>> data = load_dataset("color-digits", limit=100)
        >>> model = VAE(MLPDecoder(4, data.shape, hidden=[8]), latent_dim=4, obs_variance=0.5)
        >>> guide = AmortizedGuide(MLPEncoder(data.shape, 4, hidden=[8]))
        >>> result = evaluate(model, guide, data, epsilons=[0.0, 0.1], steps=2, limit=20)
        >>> sorted(result["tasks"]["digit"]["accuracy"])
        ['0.0', '0.1']
    """
    settings = EvaluationSettings(
        epsilons=tuple(epsilons),
        epsilons_l2=tuple(epsilons_l2),
        attack=attack,
        steps=steps,
        restarts=restarts,
        masking_epsilon=masking_epsilon,
        representation=representation,
        tasks=None if tasks is None else tuple(tasks),
        limit=limit,
        batch_size=images_at_a_time(device_of(guide, model)) if batch_size is None else batch_size,
        num_importance_samples=num_importance_samples,
        likelihood_images=likelihood_images,
        seed=seed,
        progress=progress,
        fit=fit,
    )
    _check_data(data)
    _check_pair(transfer_from)
    settings.chosen(data)
    with frozen(model, guide, *(transfer_from or ())):
        results, skipped = measure_tasks(
            guide, data, settings, transfer_from=None if transfer_from is None else transfer_from[1]
        )
        return {
            "num_train_images": len(data.train),
            "num_test_images": settings.count(data.test),
            "tasks": results,
            "tasks_skipped": skipped,
            **reconstruction_and_bound(model, guide, data.test, settings),
            **likelihood(model, guide, data.test, settings),
            **information(guide, model, data.test, settings),
            "attack": _attack(data, settings, transferred=transfer_from is not None),
            "evaluation_seed": seed,
        }


def _check_data(data: object) -> None:
    # Only here: whoever evaluates has the data sets imported already, whoever attacks a batch need not.
    from pyro_avae.data import ImageData

    if not isinstance(data, ImageData):
        raise InputError(
            f"data: expected an ImageData, got {type(data).__name__}; load_dataset() gives one, and"
            " ImageData(name, train, test, tasks) makes one of two splits"
        )


def _check_pair(pair: object) -> None:
    if pair is None:
        return
    if not isinstance(pair, tuple) or len(pair) != 2 or not hasattr(pair[1], "encode"):
        raise InputError(f"transfer_from: expected a model and a guide, (model, guide), got {shown_value(pair)}")


def _attack(data: ImageData, settings: EvaluationSettings, *, transferred: bool) -> dict[str, Any]:
    """The settings of the attacks that ran."""
    representation = REPRESENTATIONS[settings.representation]
    described: dict[str, Any] = {
        "name": settings.attack,
        "norm": "Linf",
        "norms": [ball.name for ball, _ in settings.balls()],
        "epsilons": list(settings.epsilons),
        "epsilons_l2": list(settings.epsilons_l2),
        "representation": {"name": representation.name, **representation.settings},
        "pgd": {
            "steps": settings.steps,
            "restarts": settings.restarts,
            "step_size": "epsilon * (1 + cos(pi * step / steps))",
            "loss": "logsumexp(wrong logits) - right logit; restarts after the first: target logit - right logit",
            "targets": "likeliest wrong classes of the clean image, one a restart after the first",
            "random_start": "surface of the ball",
            "num_images": settings.count(data.test),
        },
        "one_step": {"num_images": settings.count(data.test)},
        "noise": {"draws": NOISE_DRAWS, "num_images": settings.count(data.test)},
    }
    if transferred:
        described["transfer"] = {"steps": settings.steps, "restarts": 1, "num_images": settings.count(data.test)}
    if settings.attack == "autoattack":
        described["autoattack"] = {
            **autoattack_settings(),
            "parts": {task: list(autoattack_parts(classes)) for task, classes in settings.chosen(data).items()},
            "num_images": settings.count(data.test, AUTOATTACK_IMAGES if settings.limit is None else None),
        }
    return described
