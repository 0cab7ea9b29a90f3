"""Trained pairs with the data they were trained on: what the pictures of a report are made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pyro_avae.data import ImageData, load_dataset
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Classifier, encode_split, frozen
from pyro_avae.evaluation.features import images_at_a_time
from pyro_avae.evaluation.pair import device_of
from pyro_avae.evaluation.probe import FitProbe
from pyro_avae.report.runs import Run
from pyro_avae.runs.loading import load
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.stored_probes import StoredProbes
from pyro_avae.runs.trust import Trust

__all__ = ["Loader", "Subject", "load_subjects", "loader_on"]

#: A run to its trained model, its guide and its data; :class:`~pyro_avae.errors.InputError` where there is none.
Loader = Callable[[Run], tuple[Any, Any, ImageData]]


@dataclass(frozen=True, eq=False)
class Subject:
    """One trained pair.

    Attributes:
        number: its place among the report's runs, which its colour follows.
        run: the run it comes from.
        model: p(x|z).
        guide: q(z|x).
        data: the data set, on the pair's device.
    """

    number: int
    run: Run
    model: Any
    guide: Any
    data: ImageData

    def test_images(self, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The first test images with their labels: not chosen, so that no picture flatters."""
        return self.data.test.fixed_batch(torch.arange(min(count, len(self.data.test))))

    @cached_property
    def features(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Posterior means of the training set with their labels."""
        with frozen(self.model, self.guide):
            # As evaluation does: another batch rounds differently, and a stored probe is found by its features' bits.
            return encode_split(self.guide, self.data.train, batch_size=images_at_a_time(device_of(self.guide)))

    @cached_property
    def _fit(self) -> FitProbe:
        return StoredProbes(RunFolder(self.run.path).probes, write=False)

    def classifier(self, task: str) -> Classifier:
        """The encoder with the probe that the evaluation fitted, fitted again where it is not in the run's folder."""
        features, labels = self.features
        seed = int((self.run.evaluation or {}).get("evaluation_seed", 0))
        probe = self._fit(features, labels[task], self.data.tasks[task], seed=seed)
        return Classifier(self.guide, probe).to(self.data.test.device).eval()


def loader_on(device: str, *, trust: Trust = ()) -> Loader:
    """The loader of run folders: the pair through :func:`pyro_avae.load`, the data set by its name."""

    def load_run(run: Run) -> tuple[Any, Any, ImageData]:
        model, guide, config = load(run.path, device=device, trust=trust)
        data = load_dataset(config.dataset, root=config.data_root, device=device, limit=config.limit)
        return model, guide, data

    return load_run


def load_subjects(runs: Sequence[Run], loader: Loader) -> tuple[list[Subject], dict[str, list[str]]]:
    """The runs whose trained pair and data are at hand, and for the others what is missing, by label."""
    subjects = []
    gaps: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        try:
            subjects.append(Subject(number, run, *loader(run)))
        except InputError as error:
            gaps[run.label] = [f"No pictures: {error}"]
    return subjects, gaps
