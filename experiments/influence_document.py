"""What is written down of an influence: the strongest images with their labels, shares of equal labels, pictures."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_avae.data import ImageData, Split
from pyro_avae.evaluation import Influence
from pyro_avae.report.influence_pictures import most_influential, most_self_influential
from pyro_avae.report.style import Picture

__all__ = ["influence_document", "influence_pictures", "rank_correlation"]


def influence_document(found: Influence, data: ImageData, *, top: int) -> dict[str, Any]:
    """The numbers of ``influence.json``.

    Args:
        found: what :func:`~pyro_avae.evaluation.influence` gave back for ``data.train`` and ``data.test``, or the first
            images of each.
        data: the images.
        top: how many of the strongest are named.
    """
    train = _labels(data.train, len(found.self_influence))
    test = _labels(data.test, found.influence.shape[1])
    names = data.class_names

    def facts(number: int, value: float, labels: Mapping[str, Tensor]) -> dict[str, Any]:
        of = {task: names[task][int(labels[task][number])] for task in names}
        return {"image": number, "value": value, "labels": of, "name": " ".join(of.values()) or f"#{number}"}

    def strongest(numbers: Tensor, values: Tensor) -> list[dict[str, Any]]:
        return [facts(number, float(values[number]), train) for number in numbers.tolist()]

    own = found.self_influence
    return {
        "train_images": len(own),
        "test_images": found.influence.shape[1],
        "checkpoints": [{"step": s, "weight": w} for s, w in zip(found.steps, found.weights, strict=True)],
        "num_samples": found.num_samples,
        "projection": found.projection,
        "note": found.note,
        "self_influence": {
            "mean": float(own.mean()),
            "median": float(own.median()),
            "rank_correlation_with_loss": rank_correlation(own, found.loss),
            "top": [
                {**fact, "loss": float(found.loss[fact["image"]])}
                for fact in strongest(found.most_self_influential(top), own)
            ],
        },
        "test": [
            {
                **facts(number, 0.0, test),
                "proponents": strongest(found.proponents(number, top), found.influence[:, number]),
                "opponents": strongest(found.opponents(number, top), found.influence[:, number]),
            }
            for number in range(found.influence.shape[1])
        ],
        "same_label": {task: _same_label(found, train[task], test[task]) for task in names if test},
    }


def influence_pictures(document: Mapping[str, Any], data: ImageData) -> dict[str, Picture]:
    """By file name: the most self-influential images, and, where there are test images, their strongest ones."""

    def images(split: Split, facts: Sequence[Mapping[str, Any]]) -> Tensor:
        return split.fixed_batch(torch.tensor([fact["image"] for fact in facts]))[0]

    top = document["self_influence"]["top"]
    found = {"influence-self.png": most_self_influential(top, images(data.train, top))}
    shown = document["test"][:8]
    if shown:
        groups = [
            (
                images(data.test, [test])[0],
                images(data.train, test["proponents"]),
                images(data.train, test["opponents"]),
            )
            for test in shown
        ]
        found["influence-test.png"] = most_influential(shown, groups)
    return found


def rank_correlation(one: Tensor, other: Tensor) -> float | None:
    """Spearman's, of numbers of which hardly any are equal; None where there is but one.

    Example:
        >>> rank_correlation(torch.tensor([1.0, 5.0, 9.0]), torch.tensor([3.0, 2.0, 1.0]))
        -1.0
    """
    if len(one) < 2:
        return None
    ranks = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return round(float(torch.corrcoef(ranks)[0, 1]), 12)


def _same_label(found: Influence, train: Tensor, test: Tensor) -> dict[str, float]:
    """Of how many test images the strongest proponent, and opponent, has the label; and a training image at random."""
    same = train[:, None] == test[None, :]
    columns = torch.arange(len(test))
    return {
        "strongest_proponent": float(same[found.influence.argmax(0), columns].double().mean()),
        "strongest_opponent": float(same[found.influence.argmin(0), columns].double().mean()),
        "any_image": float(same.double().mean()),
    }


def _labels(split: Split, count: int) -> Mapping[str, Tensor]:
    """Of the first images, as their fixed form has them; empty where there are none of either."""
    if not count:
        return {}
    return {task: values.cpu() for task, values in split.fixed_batch(torch.arange(count))[1].items()}
