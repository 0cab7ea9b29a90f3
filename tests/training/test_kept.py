"""Training keeps parameters on its way; a resumed run keeps the same."""

import pytest
import torch

from pyro_avae.runs.kept import kept_checkpoints, load_kept
from pyro_avae.training import NonFiniteError, fit, fit_seeds

OPTIONS = {"steps": 40, "batch_size": 8, "lr": 0.01, "log_every": 6, "checkpoint_every": 7}


def files(run):
    return {path.name: path.read_bytes() for path in (run / "kept").iterdir()}


def test_ten_are_kept_with_parameters_alone(make_pair, images, tmp_path):
    model, guide = make_pair(rho="learned")
    fit(model, guide, images, **OPTIONS, out=tmp_path)
    kept = kept_checkpoints(tmp_path)
    assert [found.step for found in kept] == list(range(4, 41, 4))
    assert len(list((tmp_path / "checkpoints").glob("*.json"))) == 2
    names = {f"model.{name}" for name in model.state_dict()} | {f"guide.{name}" for name in guide.state_dict()}
    for found in kept:
        assert set(found.tensors) == names and found.facts["lr"] == 0.01
        assert found.facts["fit"]["images"] == 50 and found.facts["fit"]["batch_size"] == 8
    other = make_pair(rho="learned", seed=5)
    load_kept(kept[-1], *other)
    assert all(
        torch.equal(a, b) for a, b in zip(other[0].state_dict().values(), model.state_dict().values(), strict=True)
    )
    assert not torch.equal(kept[0].tensors["model.coupling.raw"], kept[-1].tensors["model.coupling.raw"])


@pytest.mark.parametrize("step", [1, 12, 30])
def test_a_resumed_run_keeps_the_same_files(make_pair, images, tmp_path, step, died, die_at):
    fit(*make_pair(), images, **OPTIONS, out=tmp_path / "whole")
    with pytest.raises(died):
        fit(*make_pair(), images, **OPTIONS, out=tmp_path / "run", callbacks=[die_at(step)])
    fit(*make_pair(), images, **OPTIONS, out=tmp_path / "run", resume=True)
    assert len(files(tmp_path / "whole")) == 20
    assert files(tmp_path / "run") == files(tmp_path / "whole")


def test_what_was_kept_after_the_checkpoint_that_is_gone_on_from_is_dropped(make_pair, images, tmp_path, died, die_at):
    run = tmp_path / "run"
    with pytest.raises(died):
        fit(*make_pair(), images, **OPTIONS, out=run, callbacks=[die_at(12)])
    assert [found.step for found in kept_checkpoints(run)] == [4, 8, 12]
    with pytest.raises(died):  # the checkpoint is that of step 7
        fit(*make_pair(), images, **{**OPTIONS, "keep_every": 0}, out=run, resume=True, callbacks=[die_at(12)])
    assert [found.step for found in kept_checkpoints(run)] == [4]


def test_none_are_kept_where_none_are_wanted(make_pair, images, tmp_path):
    fit(*make_pair(), images, **OPTIONS, keep_every=0, out=tmp_path)
    assert kept_checkpoints(tmp_path) == [] and not (tmp_path / "kept").exists()


@pytest.mark.parametrize("compile", [True, False])
def test_each_seed_keeps_its_own(make_pair, images, tmp_path, compile, monkeypatch):
    monkeypatch.setattr("pyro_avae.compilation.trace.TracedProgram.compile", lambda self: None)
    options = {**OPTIONS, "compile": compile, "keep_every": 20}
    outs = [tmp_path / "a", tmp_path / "b"]
    fit_seeds([make_pair(seed=1), make_pair(seed=2)], images, seeds=[1, 2], outs=outs, **options)
    for seed, out in zip((1, 2), outs, strict=True):
        fit(*make_pair(seed=seed), images, seed=seed, out=tmp_path / f"one-{seed}", **options)
        alone, together = kept_checkpoints(tmp_path / f"one-{seed}"), kept_checkpoints(out)
        assert [found.step for found in together] == [20, 40]
        for one, other in zip(alone, together, strict=True):
            assert one.facts == other.facts and one.tensors.keys() == other.tensors.keys()
            for name, tensor in one.tensors.items():
                # Rounding of float32 carried through 40 steps of Adam.
                torch.testing.assert_close(tensor, other.tensors[name], rtol=1e-4, atol=1e-5)


def test_an_error_before_the_first_checkpoint_leaves_nothing(make_pair, images, tmp_path):
    def spoil(row):
        if row["step"] == 6:
            raise NonFiniteError("no")

    with pytest.raises(NonFiniteError):
        fit(*make_pair(), images, **OPTIONS, out=tmp_path / "run", callbacks=[spoil])
    assert not (tmp_path / "run").exists()
