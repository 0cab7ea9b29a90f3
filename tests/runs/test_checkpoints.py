"""Checkpoints: exact, whole or not at all, and never code."""

import json
import os
import pickle
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import Checkpoint, newest_checkpoint, read_checkpoint, save_checkpoint


def checkpoint(step, value=0.0):
    shared = torch.full((3, 2), value)
    tensors = {
        "model.w": shared,
        "model.tied": shared,
        "view": torch.arange(6.0).reshape(2, 3).T,
        "scalar": torch.tensor(value),
        "empty": torch.zeros(0, 4),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "double": torch.tensor([1e-300, float("inf")], dtype=torch.float64),
    }
    return Checkpoint(step, tensors, {"seconds": 1.5, "fit": {"lr": 0.1}})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_tensors_and_facts_come_back_exactly(tmp_path):
    saved = checkpoint(7, 0.1)
    found = read_checkpoint(save_checkpoint(tmp_path / "new" / "checkpoints", saved))
    assert found.step == 7 and found.facts == saved.facts
    assert found.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype and torch.equal(found.tensors[name], tensor)


def test_the_last_two_are_kept(tmp_path):
    for step in (1, 5, 30):
        save_checkpoint(tmp_path, checkpoint(step))
    stems = ["step-000000000005", "step-000000000030"]
    assert names(tmp_path) == sorted(f"{stem}.{kind}" for stem in stems for kind in ("json", "safetensors"))
    assert newest_checkpoint(tmp_path).step == 30


def test_no_folder_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "none") is None


@given(st.data())
def test_a_damaged_newest_one_is_skipped_and_named(tmp_path_factory, data):
    """Any byte changed, any truncation, of either file."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(folder, checkpoint(1))
    newest = save_checkpoint(folder, checkpoint(2, 2.0))
    file = newest.with_suffix(data.draw(st.sampled_from([".json", ".safetensors"])))
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))
    if data.draw(st.booleans()):
        content = content[:place]
    elif not chr(content[place]).isspace():  # white space between JSON's parts means nothing
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        content = content[:place]
    file.write_bytes(bytes(content))
    with pytest.raises(InputError) as caught:
        read_checkpoint(newest)
    assert len(str(caught.value).splitlines()) == 1 and str(folder) in str(caught.value)
    assert newest_checkpoint(folder).step == 1


def test_skipping_says_so(tmp_path, caplog):
    save_checkpoint(tmp_path, checkpoint(1))
    save_checkpoint(tmp_path, checkpoint(2)).with_suffix(".safetensors").unlink()
    assert newest_checkpoint(tmp_path).step == 1
    assert "step-000000000002.safetensors: damaged checkpoint" in caplog.text
    assert "looking for an older checkpoint" in caplog.text


def test_a_new_one_survives_damaged_later_ones(tmp_path):
    """Training that went back behind damaged checkpoints must not remove what it saves then."""
    for step in (900, 1000):
        save_checkpoint(tmp_path, checkpoint(step)).write_text("{")
    for step in (100, 200, 300):
        save_checkpoint(tmp_path, checkpoint(step))
        assert newest_checkpoint(tmp_path).step == step
    assert "step-000000000100.json" not in names(tmp_path)


def test_leftovers_of_killed_writes_are_removed(tmp_path):
    (tmp_path / ".step-000000000009.safetensors.tmp").write_bytes(b"part")
    (tmp_path / "step-000000000003.safetensors").write_bytes(b"no JSON came after it")
    save_checkpoint(tmp_path, checkpoint(10))
    assert names(tmp_path) == ["step-000000000010.json", "step-000000000010.safetensors"]


def test_a_hostile_file_runs_no_code(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = save_checkpoint(tmp_path, checkpoint(1))
    path.with_suffix(".safetensors").write_bytes(pickle.dumps(Hostile()))
    assert newest_checkpoint(tmp_path) is None
    assert not (tmp_path / "owned").exists()


def test_another_format_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, checkpoint(1))
    document = json.loads(path.read_text())
    assert document["format"] == 1
    import hashlib

    del document["sha256"]
    document["format"] = 99
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({**document, "sha256": digest}))
    with pytest.raises(InputError, match="format: expected 1, got 99"):
        read_checkpoint(path)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_failed_write_leaves_the_earlier_ones(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(1))
    before = names(tmp_path)

    def full(descriptor):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    assert names(tmp_path) == before
    assert newest_checkpoint(tmp_path).step == 1
