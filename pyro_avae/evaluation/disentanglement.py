"""Whether latents follow the factors that images were made from: within neighbourhoods of them, and overall."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.factor_information import (
    discretized,
    entropies,
    factor_information,
    information_gap,
    modularity,
)
from pyro_avae.evaluation.factors import FEWEST_VALUES, Generator, neighbours
from pyro_avae.evaluation.features import images_at_a_time, posterior_mean
from pyro_avae.evaluation.frozen import frozen
from pyro_avae.evaluation.intervals import mean_and_standard_error
from pyro_avae.evaluation.pair import Guide, device_of
from pyro_avae.evaluation.plain import plain_number
from pyro_avae.randomness import isolated, stream_seed

__all__ = ["RHOS", "disentanglement"]

#: The neighbourhoods of the paper.
RHOS = (0.1, 0.2, 0.3, 0.6, 1.0)


def disentanglement(
    guide: Guide,
    generator: Generator,
    *,
    rhos: Sequence[float] = RHOS,
    clusters: int = 20,
    samples: int = 10_000,
    bins: int = 5,
    batch_size: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    r"""Local and global MIG and modularity of the posterior means, from images made for the purpose.

    For each of ``clusters`` centroids, ``samples`` factors near it (:func:`~pyro_avae.evaluation.factors.neighbours`)
    are drawn, rendered and encoded; the means, discretised in ``bins`` intervals of equal length each, give the mutual
    informations of codes and factors, and those :func:`~pyro_avae.evaluation.factor_information.information_gap` and
    :func:`~pyro_avae.evaluation.factor_information.modularity`. Frequencies overestimate an information by about
    (bins − 1)(values − 1)/(2 samples) nats, so numbers of different ``samples`` are not to be compared where that
    counts: with few samples the modularity of a code that knows of nothing is that of noise.

    Args:
        guide: q(z|x), with ``encode``.
        generator: of the images: :data:`~pyro_avae.data.THREE_DOTS`, or one's own with ``num_values`` and ``render``.
        rhos: sizes of the neighbourhoods, as shares of each factor's values.
        clusters: how many centroids.
        samples: images around each.
        bins: intervals of a code.
        batch_size: images at a time; by default 500 on a CPU and 2,000 elsewhere.
        seed: of centroids and factors; the same for every rho.
        progress: called with the number of clusters that are done, and of all.

    Returns:
        Plain numbers: ``local``, by ``str(rho)`` the ``mig`` and the ``modularity``, each with its ``mean`` and
        ``standard_error`` over clusters; ``global``, the same where every factor takes all its values (``local`` at 1
        holds factors of fewer than 10 values); and ``clusters``, ``samples``, ``bins``, ``seed``. A number that is not
        finite, as where no factor varies, is None.

    Raises:
        InputError: counts below 1, a rho below 0, fewer than two factors.

    Example:
        >>> from pyro_avae.data import THREE_DOTS
        >>> from pyro_avae.guides import AmortizedGuide, MLPEncoder
        >>> guide = AmortizedGuide(MLPEncoder((1, 64, 64), 2, hidden=[8]))
        >>> found = disentanglement(guide, THREE_DOTS, rhos=[0.1], clusters=2, samples=50)
        >>> sorted(found["local"]["0.1"])
        ['mig', 'modularity']

    Source: Rhodes and Lee, *Local Disentanglement in Variational Auto-Encoders Using Jacobian L1 Regularization*,
        NeurIPS 2021 (arXiv 2106.02923), section 5.
    """
    for name, value in {"clusters": clusters, "samples": samples, "bins": bins}.items():
        if value < 1:
            raise InputError(f"{name}: expected at least 1, got {value}")
    device, values = device_of(guide), list(generator.num_values)
    size = images_at_a_time(device) if batch_size is None else batch_size
    # Where every factor has neighbours, the neighbourhood of size 1 is the whole.
    whole = (1.0, FEWEST_VALUES if min(values, default=0) >= FEWEST_VALUES else 0)
    wanted = list(dict.fromkeys([*((float(rho), FEWEST_VALUES) for rho in rhos), whole]))
    done = 0

    @cache
    def measure(rho: float, fewest: int) -> dict[str, Any]:
        nonlocal done
        found = []
        for cluster in range(clusters):
            source = torch.Generator("cpu").manual_seed(stream_seed(seed, "cluster", cluster))
            factors = neighbours(values, rho, samples, fewest=fewest, generator=source).to(device)
            found.append(_measured(_codes(guide, generator, factors, size), factors, bins))
            done += 1
            if progress is not None:
                progress(done, clusters * len(wanted))
        return {name: _summary([one[name] for one in found]) for name in found[0]}

    with isolated(seed), frozen(guide), torch.no_grad():
        return {
            "local": {str(float(rho)): measure(float(rho), FEWEST_VALUES) for rho in rhos},
            "global": measure(*whole),
            "clusters": clusters,
            "samples": samples,
            "bins": bins,
            "seed": seed,
        }


def _codes(guide: Guide, generator: Generator, factors: Tensor, size: int) -> Tensor:
    return torch.cat([posterior_mean(guide, generator.render(part)) for part in factors.split(size)])


def _measured(codes: Tensor, factors: Tensor, bins: int) -> dict[str, float]:
    information = factor_information(discretized(codes, bins), factors)
    return {"mig": information_gap(information, entropies(factors)), "modularity": modularity(information)}


def _summary(values: Sequence[float]) -> dict[str, float | None]:
    found = mean_and_standard_error(values)
    error = found["standard_error"]
    return {"mean": plain_number(found["mean"]), "standard_error": None if error is None else plain_number(error)}
