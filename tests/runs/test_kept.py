"""Parameters kept through training: which steps, what is in them, and a reader that leaves out damaged ones."""

import json

import pytest
import torch

from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import Checkpoint, newest_checkpoint, write_checkpoint
from pyro_avae.runs.kept import kept_checkpoints, load_kept, remove_later
from pyro_avae.training.plan import Plan

PLAN = {"batch_size": 8, "lr": 0.01, "kl_warmup": 0, "precision": "32-true", "compile": False}
PLAN |= {"checkpoint_every": 7, "log_every": 6}


def kept_steps(steps, keep_every):
    plan = Plan(steps=steps, keep_every=keep_every, **PLAN)
    return [step for step in range(1, steps + 1) if plan.is_kept(step)]


@pytest.mark.parametrize(
    ("steps", "keep_every", "expected"),
    [
        (40, None, list(range(4, 41, 4))),
        (25, None, [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]),
        (3, None, [1, 2, 3]),
        (40, 15, [15, 30]),
        (40, 0, []),
    ],
)
def test_which_steps_are_kept(steps, keep_every, expected):
    assert kept_steps(steps, keep_every) == expected


def test_a_negative_number_of_steps_is_refused():
    with pytest.raises(InputError, match=r"^keep_every: expected an integer in 0\.\."):
        Plan(steps=40, keep_every=-1, **PLAN)


def write(folder, *steps):
    for step in steps:
        write_checkpoint(folder / "kept", Checkpoint(step, {"model.w": torch.full((2,), float(step))}, {"lr": 0.1}))


def test_they_are_read_in_order_and_a_damaged_one_is_left_out(tmp_path, caplog):
    write(tmp_path, 200, 30, 4)
    assert [found.step for found in kept_checkpoints(tmp_path)] == [4, 30, 200]
    assert kept_checkpoints(tmp_path)[1].facts["lr"] == 0.1
    (tmp_path / "kept" / "step-000000000030.safetensors").write_bytes(b"\0" * 40)
    assert [found.step for found in kept_checkpoints(tmp_path)] == [4, 200]
    assert "damaged checkpoint" in caplog.text and "left out" in caplog.text


def test_later_ones_are_removed(tmp_path):
    write(tmp_path, 4, 30, 200)
    remove_later(tmp_path / "kept", 30)
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == [
        f"step-{step:012d}.{kind}" for step in (4, 30) for kind in ("json", "safetensors")
    ]
    assert json.loads((tmp_path / "kept" / "step-000000000004.json").read_text())["step"] == 4


def test_a_checkpoint_of_another_pair_changes_nothing(tmp_path):
    model, guide = torch.nn.Linear(2, 1), torch.nn.Linear(1, 2)
    before = model.weight.detach().clone()
    tensors = {f"model.{name}": value + 1 for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match=r"^guide\.weight: the checkpoint has none"):
        load_kept(Checkpoint(1, tensors), model, guide)
    assert torch.equal(model.weight, before)
    whole = tensors | {f"guide.{name}": value for name, value in guide.state_dict().items()}
    load_kept(Checkpoint(1, whole), model, guide)
    assert torch.equal(model.weight, before + 1)


def test_there_is_nothing_where_there_is_no_folder(tmp_path):
    assert kept_checkpoints(tmp_path / "none") == [] and newest_checkpoint(tmp_path / "none") is None
