"""Several seeds trained at once: the runs that single trainings leave."""

import json

import pytest
import torch

from pyro_avae import load
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.data import load_dataset
from pyro_avae.errors import InputError
from pyro_avae.experiments.cli import main
from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import ExtendedVAE, MLPDecoder
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.training import fit, fit_seeds

OPTIONS = {"steps": 20, "batch_size": 8, "lr": 0.01, "log_every": 6, "checkpoint_every": 7}


@pytest.fixture(autouse=True)
def traced_only(monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)


def assert_same_run(one, other):
    a, b = (newest_checkpoint(run / "checkpoints") for run in (one, other))
    assert a.step == b.step and a.tensors.keys() == b.tensors.keys()
    assert a.facts["fit"] == b.facts["fit"]
    for name, tensor in a.tensors.items():
        if name.startswith(("model.", "guide.", "optimizer.")):
            # Rounding of float32 carried through 20 steps of Adam.
            torch.testing.assert_close(tensor, b.tensors[name], rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    rows, others = ([json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, other))
    assert [row.keys() for row in rows] == [row.keys() for row in others]
    for row, same in zip(rows, others, strict=True):
        assert row == pytest.approx(same, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("compile", [True, False])
def test_each_run_is_that_of_its_seed_alone(make_pair, images, tmp_path, compile):
    seeds = [3, 8]
    options = {**OPTIONS, "kl_warmup": 5, "compile": compile}
    pairs = [make_pair(seed=seed, rho="learned", learned_variance=True) for seed in seeds]
    results = fit_seeds(pairs, images, seeds=seeds, outs=[tmp_path / f"all-{s}" for s in seeds], **options)
    for seed, result, (model, _) in zip(seeds, results, pairs, strict=True):
        pair = make_pair(seed=seed, rho="learned", learned_variance=True)
        fit(*pair, images, seed=seed, out=tmp_path / f"one-{seed}", **options)
        assert_same_run(tmp_path / f"all-{seed}", tmp_path / f"one-{seed}")
        assert [row["step"] for row in result.history] == [1, 6, 12, 18, 20]
        torch.testing.assert_close(model.state_dict(), pair[0].state_dict(), rtol=1e-4, atol=1e-5)
    assert results[0].history[-1]["loss"] != results[1].history[-1]["loss"]


def test_seeds_draw_their_own_colours_and_order(tmp_path):
    data = load_dataset("color-digits", limit=40)

    def pair(seed):
        torch.manual_seed(seed)
        model = ExtendedVAE(MLPDecoder(2, data.shape, hidden=[4]), latent_dim=2, rho=0.9, obs_variance=0.5)
        return model, AVAEGuide(MLPEncoder(data.shape, 2, hidden=[4]), model)

    options = {**OPTIONS, "compile": True}
    fit_seeds([pair(1), pair(2)], data, seeds=[1, 2], outs=[tmp_path / "all-1", tmp_path / "all-2"], **options)
    for seed in (1, 2):
        fit(*pair(seed), data, seed=seed, out=tmp_path / f"one-{seed}", **options)
        assert_same_run(tmp_path / f"all-{seed}", tmp_path / f"one-{seed}")


class Died(BaseException):
    """Like a kill."""


class DiesAt:
    """A reporter that ends the training."""

    def __init__(self, step):
        self.step = step

    def start(self, done, total): ...

    def advance(self, done): ...

    def note(self, text): ...

    def stop(self): ...

    def log(self, row):
        if row["step"] == self.step:
            raise Died


def test_a_resumed_training_goes_on_from_a_step_that_all_have(make_pair, images, tmp_path):
    seeds = [0, 1]

    def outs(name):
        return [tmp_path / f"{name}-{seed}" for seed in seeds]

    def pairs():
        return [make_pair(seed=seed) for seed in seeds]

    options = {**OPTIONS, "seeds": seeds, "compile": True}
    fit_seeds(pairs(), images, outs=outs("whole"), **options)
    with pytest.raises(Died):
        fit_seeds(pairs(), images, outs=outs("run"), progress=DiesAt(18), **options)
    # Killed between the two seeds' checkpoints of step 14: the second has that of step 7 alone.
    for path in (tmp_path / "run-1" / "checkpoints").glob("step-000000000014.*"):
        path.unlink()
    results = fit_seeds(pairs(), images, outs=outs("run"), resume=True, **options)
    assert all([row["step"] for row in result.history] == [1, 6, 12, 18, 20] for result in results)
    for seed in seeds:
        one, other = (newest_checkpoint(tmp_path / f"{name}-{seed}" / "checkpoints") for name in ("whole", "run"))
        assert all(torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_wrong_seeds_are_refused(make_pair, images, tmp_path):
    pairs = [make_pair(seed=seed) for seed in (0, 1)]
    for seeds in ([0], [0, 0], [0, 1, 2]):
        with pytest.raises(InputError, match="seeds: expected 2 different ones"):
            fit_seeds(pairs, images, seeds=seeds, **OPTIONS)
    with pytest.raises(InputError, match="pairs: expected at least one"):
        fit_seeds([], images, seeds=[], **OPTIONS)
    with pytest.raises(InputError, match="outs: expected 2, one for each seed, got 1"):
        fit_seeds(pairs, images, seeds=[0, 1], outs=[tmp_path / "a"], **OPTIONS)


def test_the_command_line_trains_seeds_at_once(tmp_path, capsys):
    command = (
        "train --method avae --dataset color-digits --steps 4 --batch-size 8 --hidden 8 --latent-dim 2 --device cpu"
    )
    options = [*command.split(), "--limit", "50", "--no-progress"]
    assert main([*options, "--seed", "5", "--seeds", "2", "--out", str(tmp_path / "all")]) == 0
    assert capsys.readouterr().out.count("4 steps") == 2
    assert main([*options, "--seed", "6", "--out", str(tmp_path / "one")]) == 0
    assert_same_run(tmp_path / "all" / "seed-6", tmp_path / "one")
    assert load(tmp_path / "all" / "seed-5")[2].seed == 5
    assert main([*options, "--seed", "5", "--seeds", "2", "--out", str(tmp_path / "all"), "--resume"]) == 0
    assert "already finished" in capsys.readouterr().out
    assert main([*options, "--seeds", "2", "--out", str(tmp_path / "all")]) == 2
    assert main([*options, "--seeds", "0", "--out", str(tmp_path / "none")]) == 2


def test_going_on_with_what_is_not_there_is_refused(tmp_path, capsys):
    command = "train --dataset color-digits --steps 2 --batch-size 8 --hidden 8 --latent-dim 2 --device cpu --limit 50"
    both, one = str(tmp_path / "both"), str(tmp_path / "one")
    assert main([*command.split(), "--no-progress", "--out", both, "--seed", "7", "--seeds", "2"]) == 0
    assert main([*command.split(), "--no-progress", "--out", one]) == 0
    assert main(["train", "--resume", "--device", "cpu", "--seeds", "2", "--out", both]) == 0, (
        "the seeds that are there"
    )
    assert "already finished" in capsys.readouterr().out
    for arguments, message in (
        (["--out", both], "holds several runs; give --seeds 2 to go on with them, or --out"),
        (["--out", both, "--seeds", "3"], "holds the seeds 7, 8, got 7, 8, 9"),
        (["--out", both, "--seeds", "2", "--seed", "0"], "holds the seeds 7, 8, got 0, 1"),
        (["--out", one, "--seeds", "2"], "holds one run; leave out --seeds"),
        (["--out", str(tmp_path / "none")], "no run to go on with; leave out --resume"),
        (["--out", str(tmp_path / "none"), "--seeds", "2"], "no run to go on with; leave out --resume"),
    ):
        assert main(["train", "--resume", "--device", "cpu", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert not (tmp_path / "none").exists() and not (tmp_path / "one" / "seed-0").exists()
    assert sorted(path.name for path in (tmp_path / "both").iterdir()) == ["seed-7", "seed-8"]
