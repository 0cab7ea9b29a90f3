"""How large a reproduction is: settings of training, seeds, sizes of evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """One size.

    Attributes:
        settings: of every run; a row's own come after, and a method is spared those that it has no use for.
        seeds: how many.
        limit: images of each split, None for all.
        evaluation: options of :func:`~pyro_avae.evaluation.evaluate`; ``limit`` is the number of test images.
        features: options of :func:`~pyro_avae.evaluation.classifier_features`.
        samples: that the Fréchet distance is measured with.
        inception: whether to measure it in Inception's features where its weights are at hand.
        by_experiment: settings that differ for an experiment.
        evaluation_by_experiment: options of the evaluation that differ for an experiment.
        relative_steps: of a method, where it trains another number of steps than the others.
    """

    settings: Mapping[str, Any]
    seeds: int
    evaluation: Mapping[str, Any]
    limit: int | None = None
    features: Mapping[str, Any] = field(default_factory=dict)
    samples: int = 10_000
    inception: bool = False
    by_experiment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    evaluation_by_experiment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    relative_steps: Mapping[str, float] = field(default_factory=dict)

    def settings_for(self, experiment: str) -> dict[str, Any]:
        """The settings of an experiment's runs."""
        limit = {} if self.limit is None else {"limit": self.limit}
        return {**self.settings, **limit, **self.by_experiment.get(experiment, {})}

    def evaluation_for(self, experiment: str) -> dict[str, Any]:
        """The options of the evaluation of an experiment's runs."""
        return {**self.evaluation, **self.evaluation_by_experiment.get(experiment, {})}

    def steps_for(self, method: str, steps: int) -> int:
        """The steps of a method where the others train ``steps``."""
        return round(steps * self.relative_steps.get(method, 1))


PRESETS: Mapping[str, Preset] = {
    # Shows that every row trains, is attacked and is reported; its numbers mean nothing.
    "smoke": Preset(
        settings={"hidden": (32,), "latent_dim": 8, "steps": 20, "lr": 1e-3, "batch_size": 32, "log_every": 5},
        seeds=1,
        evaluation={"limit": 40, "steps": 2, "restarts": 1, "num_importance_samples": 30},
        limit=200,
        features={"num_train": 200, "epochs": 1},
        samples=50,
        by_experiment={"celeba": {"architecture": "mlp"}},
    ),
    # Hours on two cores: narrow convolutions, fewer steps at ten times the learning rate. Methods that attack within
    # every step train half of them, which still takes longer than the AVAE's.
    "cpu": Preset(
        settings={"architecture": "conv", "channels": 16, "steps": 16_000, "lr": 1e-3, "batch_size": 64},
        seeds=1,
        evaluation={"limit": 1000, "steps": 40, "restarts": 2},
        samples=5000,
        by_experiment={
            "celeba": {"channels": 8, "steps": 4000},
            "density": {
                "architecture": "mlp",
                "hidden": (400, 400),
                "latent_dim": 32,
                "batch_size": 100,
                "steps": 10_000,
            },
        },
        evaluation_by_experiment={"density": {"num_importance_samples": 1000, "likelihood_images": 1000}},
        relative_steps={"se": 0.5, "se-avae": 0.5},
    ),
    # The paper's steps; learning rate and batch of the authors' code; convolutions (docs/reproduction.md).
    "full": Preset(
        settings={"architecture": "conv", "steps": 102_000, "lr": 1e-4, "batch_size": 64},
        seeds=3,
        evaluation={"limit": None, "steps": 40, "restarts": 4},
        by_experiment={"density": {"steps": 500_000, "lr": 5e-4, "batch_size": 100}},
        evaluation_by_experiment={"density": {"num_importance_samples": 1000, "likelihood_images": 10_000}},
        inception=True,
    ),
}
