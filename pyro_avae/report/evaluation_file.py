"""``evaluation.json``, checked: what the report computes with is what it should be."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pyro_avae.errors import InputError, shown_value
from pyro_avae.paths import shown
from pyro_avae.runs.files import read_json

__all__ = ["read_evaluation"]


def read_evaluation(path: Path) -> dict[str, Any]:
    """The evaluation in a file. What the report only prints may be anything, or missing.

    Raises:
        InputError: no JSON object, or a value of the wrong kind; file and place are named.
    """
    document = read_json(path)
    where = shown(path)
    _expect(where, document, lambda value: isinstance(value, dict), "a JSON object")
    for key, (test, allowed) in _FIELDS.items():
        if key in document:
            _expect(f"{where}: {key}", document[key], test, allowed)
    for name, task in document.get("tasks", {}).items():
        _check_task(f"{where}: tasks: {shown_value(name)}", task)
    attack = document.get("attack", {})
    _expect(f"{where}: attack: epsilons", attack.get("epsilons", []), _is_radii, "a list of radii")
    _expect(f"{where}: attack: pgd", attack.get("pgd", {}), _is_pgd, "an object with counts 'steps' and 'restarts'")
    evaluation: dict[str, Any] = document
    return evaluation


def _check_task(where: str, task: Any) -> None:
    _expect(where, task, lambda value: isinstance(value, dict), "an object")
    _expect(f"{where}: accuracy", task.get("accuracy"), _is_accuracies, "accuracies in [0, 1] by radius")
    if "accuracy_autoattack" in task:
        other = task["accuracy_autoattack"]
        _expect(f"{where}: accuracy_autoattack", other, _is_accuracies, "accuracies in [0, 1] by radius")
    if task.get("majority") is not None:
        _expect(f"{where}: majority", task["majority"], _is_share, "a number in [0, 1]")


#: No evaluation counts further; a float does.
_MOST = 10**15


def _expect(where: str, value: Any, test: Callable[[Any], bool], allowed: str) -> None:
    if not test(value):
        raise InputError(f"{where}: expected {allowed}, got {shown_value(value)}")


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_accuracies(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) > 0
        and all(_is_radius(radius) and _is_share(accuracy) for radius, accuracy in value.items())
    )


def _is_radius(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _is_factors(value: Any) -> bool:
    """``local`` by ρ and ``global``, each with objects in it."""
    if not isinstance(value, dict) or not isinstance(value.get("local", {}), dict):
        return False
    places = [*value.get("local", {}).values(), value.get("global", {})]
    measured = all(isinstance(place, dict) and all(map(_is_mapping, place.values())) for place in places)
    return measured and all(map(_is_radius, value.get("local", {})))


def _is_radii(value: Any) -> bool:
    return isinstance(value, list) and all(_is_share(radius) for radius in value)


def _is_pgd(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_count(value.get(key, 1)) for key in ("steps", "restarts"))


_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "tasks": (_is_mapping, "an object"),
    "bound": (_is_mapping, "an object"),
    "psis_khat": (_is_mapping, "an object"),
    "attack": (_is_mapping, "an object"),
    "disentanglement": (_is_factors, "numbers by neighbourhood"),
    "num_test_images": (_is_count, "a count of at least 1"),
    "evaluation_seed": (_is_seed, "an integer of at least 0"),
}
