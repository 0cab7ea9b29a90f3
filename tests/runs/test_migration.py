"""Documents of earlier and later versions."""

import json

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.runs import checkpoints, settings
from pyro_avae.runs.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from pyro_avae.runs.migration import migrated
from pyro_avae.runs.settings import Settings

STEPS = {1: lambda d: {**d, "b": d["a"] + 1}, 2: lambda d: {"c": d["b"] * 2}}


def test_every_version_leads_to_the_present_one():
    assert migrated({"format": 1, "a": 1}, STEPS, current=3, what="x") == {"c": 4}
    assert migrated({"format": 2, "b": 5}, STEPS, current=3, what="x") == {"c": 10}
    assert migrated({"format": 3, "c": 5}, STEPS, current=3, what="x") == {"c": 5}


@pytest.mark.parametrize("version", [4, None, True, "1", 1.0])
def test_what_is_no_version_or_a_later_one_is_refused(version):
    with pytest.raises(InputError, match="x: format: expected 3, got"):
        migrated({"format": version, "a": 1}, STEPS, current=3, what="x")


def test_a_version_that_nothing_leads_on_from_is_named():
    with pytest.raises(InputError, match="nothing reads format 0 any more"):
        migrated({"format": 0, "a": 1}, STEPS, current=3, what="x")


def test_an_old_checkpoint_is_read_by_its_migration(tmp_path, monkeypatch):
    path = write_checkpoint(tmp_path, Checkpoint(7, {"w": torch.ones(2)}, {"lr": 0.1}))
    monkeypatch.setattr(checkpoints, "FORMAT", 2)
    with pytest.raises(InputError, match="nothing reads format 1 any more"):
        read_checkpoint(path)
    monkeypatch.setattr(checkpoints, "MIGRATIONS", {1: lambda d: {**d, "rate": d["lr"]}})
    found = read_checkpoint(path)
    assert found.step == 7 and found.facts["rate"] == 0.1 and torch.equal(found.tensors["w"], torch.ones(2))


def test_old_settings_are_read_by_their_migration(monkeypatch):
    old = json.loads(json.dumps({**Settings().to_json(), "learning_rate": 0.5}))
    del old["lr"]
    monkeypatch.setattr(settings, "FORMAT", 2)
    monkeypatch.setattr(
        settings,
        "MIGRATIONS",
        {1: lambda d: {**{n: v for n, v in d.items() if n != "learning_rate"}, "lr": d["learning_rate"]}},
    )
    assert Settings.from_json(old).lr == 0.5
