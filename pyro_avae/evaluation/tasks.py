"""Each task of a data set: its probe, and what the attacks leave of its accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pyro_avae.errors import InputError
from pyro_avae.evaluation.autoattack import AUTOATTACK_IMAGES
from pyro_avae.evaluation.ball import LINF, Ball
from pyro_avae.evaluation.features import Classifier, encode_split, split_labels
from pyro_avae.evaluation.gradient_masking import MASKING_IMAGES, masking_check
from pyro_avae.evaluation.pair import Guide, device_of
from pyro_avae.evaluation.probe import LinearProbe, OneClassError
from pyro_avae.evaluation.representation import REPRESENTATIONS
from pyro_avae.evaluation.robustness import (
    Attack,
    Standing,
    autoattack_with,
    noise_with,
    one_step_with,
    pgd_with,
    standing,
    transfer_with,
)
from pyro_avae.evaluation.settings import EvaluationSettings
from pyro_avae.randomness import isolated

if TYPE_CHECKING:
    from pyro_avae.data import ImageData, Split

__all__ = ["measure_tasks"]

# Attacks that take no time to speak of have no progress of their own.
_QUICK = ("noise", "one_step")


@dataclass(frozen=True)
class _Encoded:
    """A guide and what it makes of the training set, for the probes of all tasks."""

    guide: Guide
    features: Tensor
    labels: Mapping[str, Tensor]
    settings: EvaluationSettings

    def probe(self, task: str, num_classes: int) -> LinearProbe:
        return self.settings.fit(self.features, self.labels[task], num_classes, seed=self.settings.seed)


def measure_tasks(
    guide: Guide, data: ImageData, settings: EvaluationSettings, *, transfer_from: Guide | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """The results of each task, and why a task was left out, by name.

    A task whose training or test labels hold one class only is left out: there is no probe to fit, or nothing that an
    accuracy would say.

    Raises:
        InputError: a task that the data do not have, or one that a probe cannot be fitted to for another reason.
    """
    tasks = settings.chosen(data)
    if not tasks:
        return {}, {}
    own = _encode(guide, data, settings, "encode")
    other = None if transfer_from is None else _encode(transfer_from, data, settings, "encode (transfer)")
    truth = split_labels(data.test, batch_size=settings.batch_size)
    results: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for task, num_classes in tasks.items():
        reason = _one_class("test", truth[task]) or _one_class("training", own.labels[task])
        if reason is not None:
            skipped[task] = reason
            continue
        try:
            results[task] = _Task(task, num_classes, data.test, settings, own, other).measure()
        except OneClassError as error:
            skipped[task] = str(error)
        except InputError as error:
            raise InputError(f"task {task!r}: {error}") from error
    return results, skipped


def _encode(guide: Guide, data: ImageData, settings: EvaluationSettings, stage: str) -> _Encoded:
    with isolated(settings.seed):
        features, labels = encode_split(
            guide,
            data.train,
            batch_size=settings.batch_size,
            features=REPRESENTATIONS[settings.representation].features,
            progress=settings.stage(stage),
        )
    return _Encoded(guide, features, labels, settings)


def _one_class(name: str, labels: Tensor) -> str | None:
    classes = labels.unique()
    return f"all {len(labels)} {name} labels are of class {int(classes[0])}" if len(classes) == 1 else None


@dataclass(frozen=True)
class _Task:
    """One task, and everything that its measurement needs."""

    name: str
    num_classes: int
    test: Split
    settings: EvaluationSettings
    own: _Encoded
    other: _Encoded | None

    def measure(self) -> dict[str, Any]:
        """Accuracies, the check of the attack, probe, majority rate."""
        probe = self.own.probe(self.name, self.num_classes)
        classifier = self._classifier(self.own, probe)
        source = None
        if self.other is not None:
            source = self._classifier(self.other, self.other.probe(self.name, self.num_classes))
        result: dict[str, Any] = {}
        found: dict[Ball, dict[str, Standing]] = {}
        for ball, radii in self.settings.balls():
            attacks = self._attacks(ball, source)
            found[ball] = {name: self._run(classifier, radii, name, attack) for name, attack in attacks}
            result |= _entries(found[ball], ball)
            if self.settings.attack == "autoattack":
                strong = self._run(
                    classifier,
                    radii,
                    "autoattack",
                    autoattack_with(num_classes=self.num_classes, ball=ball),
                    limit=AUTOATTACK_IMAGES if self.settings.limit is None else None,
                )
                result |= _entries({"autoattack": strong}, ball)
        check = masking_check(
            self._at_large(classifier, source),
            found,
            LINF,
            num_classes=self.num_classes,
            is_random=classifier.is_random,
        )
        representation = REPRESENTATIONS[self.settings.representation]
        counts = found[LINF]["pgd"].labels.bincount()
        return {
            **result,
            "gradient_masking": check,
            "probe": probe.summary(representation.description),
            "majority": int(counts.max()) / int(counts.sum()),
        }

    def _classifier(self, encoded: _Encoded, probe: LinearProbe) -> Classifier:
        representation = REPRESENTATIONS[self.settings.representation]
        return representation.classifier(encoded.guide, probe).to(device_of(encoded.guide)).eval()

    def _attacks(self, ball: Ball, source: Classifier | None) -> Iterator[tuple[str, Attack]]:
        """PGD and the weaker attacks that it is held against."""
        steps = self.settings.steps
        yield "pgd", pgd_with(steps=steps, restarts=self.settings.restarts, ball=ball)
        yield "one_step", one_step_with(ball=ball)
        yield "noise", noise_with(ball=ball)
        if source is not None:
            yield "transfer", transfer_with(source, steps=steps, ball=ball)

    def _at_large(self, classifier: Classifier, source: Classifier | None) -> dict[str, Standing]:
        radii = (self.settings.masking_epsilon,)
        attacks = self._attacks(LINF, source)
        return {
            name: self._run(classifier, radii, name, attack, limit=MASKING_IMAGES, stage="gradient masking")
            for name, attack in attacks
        }

    def _run(
        self,
        classifier: Classifier,
        radii: Sequence[float],
        name: str,
        attack: Attack,
        *,
        limit: int | None = None,
        stage: str | None = None,
    ) -> Standing:
        settings = self.settings
        return standing(
            classifier,
            self.test,
            self.name,
            radii,
            attack,
            seed=settings.seed,
            batch_size=settings.batch_size,
            limit=settings.count(self.test, limit),
            progress=None if name in _QUICK else settings.stage(f"{stage or name}: {self.name}"),
        )


def _entries(results: Mapping[str, Standing], ball: Ball) -> dict[str, dict[str, float]]:
    """``accuracy`` and ``balanced_accuracy`` of each attack, PGD's without the attack's name."""
    entries = {}
    for name, left in results.items():
        suffix = ("" if name == "pgd" else f"_{name}") + ball.suffix
        entries[f"accuracy{suffix}"] = left.accuracy()
        entries[f"balanced_accuracy{suffix}"] = left.balanced_accuracy()
    return entries
