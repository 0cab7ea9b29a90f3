"""``pyro-avae reproduce disentanglement`` for real, smallest, again, refused; and the measure of a run of one's own."""

import json
from functools import partial
from pathlib import Path

import pytest

from pyro_avae.errors import InputError
from pyro_avae.evaluation import disentanglement
from pyro_avae.experiments import disentanglement as study
from pyro_avae.experiments import further
from pyro_avae.experiments.disentanglement import reproduce_disentanglement
from pyro_avae.experiments.disentanglement_rows import PRESETS, PUBLISHED, ROWS
from pyro_avae.runs.run_folder import RunFolder

RHOS = ["0.1", "0.2", "0.3", "0.6", "1.0"]


def small(out, **options):
    return reproduce_disentanglement(out, preset="smoke", device="cpu", **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of two finished rows; read it, do not change it."""
    out = tmp_path_factory.mktemp("disentanglement") / "out"
    small(out, rows=["beta-vae", "jl1-0.1"])
    return out


def test_rows_are_normal_runs_with_the_paper_s_schedule(done):
    for name, gamma in (("beta-vae", 0.0), ("jl1-0.1", 0.1)):
        settings = RunFolder(done / name / "seed-0").read_settings()
        assert (settings.method, settings.beta, settings.jacobian_l1, settings.latent_dim) == (
            "beta-vae",
            4.0,
            gamma,
            10,
        )
        assert (settings.steps, settings.kl_warmup, settings.likelihood) == (12, 4, "cross-entropy")
        assert settings.jacobian_step == (0.001 if gamma else None)
        evaluation = json.loads((done / name / "seed-0" / "evaluation.json").read_text())
        assert evaluation["disentanglement"]["samples"] == 200 and evaluation["num_test_images"] == 40


def test_results_have_ours_beside_the_published_numbers(done):
    document = json.loads((done / "results.json").read_text())
    assert [row["row"] for row in document["rows"]] == ["beta-vae", "jl1-0.1"]
    for row in document["rows"]:
        evaluation = json.loads((done / row["row"] / "seed-0" / "evaluation.json").read_text())
        assert row["paper"] == PUBLISHED[row["row"]]
        for measure in ("mig", "modularity"):
            assert list(row["ours"][measure]) == RHOS
            for rho in RHOS:
                found = evaluation["disentanglement"]["local"][rho][measure]["mean"]
                assert row["ours"][measure][rho]["mean"] == pytest.approx(found) and 0 < found < 1
        assert row["ours"]["steps"] == 12
    page = (done / "table.md").read_text()
    assert "*JL1-VAE, γ = 0.1, published* | *0.125*" in page and "far shorter" in page
    ours = document["rows"][1]["ours"]["mig"]["0.1"]["mean"]
    assert f"| JL1-VAE, γ = 0.1, ours | {ours:.3f} |" in page
    assert (done / "curves.svg").read_text().startswith("<?xml")


def test_again_nothing_is_run(done, monkeypatch):
    monkeypatch.setattr(study.Measured, "train", lambda *args, **options: pytest.fail("trained"))
    monkeypatch.setattr(study.Measured, "measure", lambda *args, **options: pytest.fail("measured"))
    assert len(small(done, rows=["jl1-0.1"])["rows"]) == 2


def test_the_command_line_reaches_it(done, cli):
    words = ("--preset", "smoke", "--device", "cpu", "--no-progress", "--rows", "beta-vae", "--out", done)
    status, _, err = cli("reproduce", "disentanglement", *words)
    assert (status, err) == (0, "")
    assert json.loads((done / "results.json").read_text())["command"].startswith("pyro-avae reproduce disentanglement")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": ["avae"]}, "--rows: expected some of beta-vae, jl1-0.05, jl1-0.1, jl1-0.2, jl1-0.4, got 'avae'"),
        ({"epsilons": [0.1]}, "--epsilons: the experiment disentanglement makes its own images and attacks none"),
        ({"attack": "autoattack"}, "--attack: the experiment disentanglement"),
        ({"test_images": 5}, "--test-images: the experiment disentanglement"),
    ],
)
def test_what_it_has_no_use_for(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        small(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_an_unknown_preset_and_another_run_in_the_folder(done, tmp_path):
    with pytest.raises(InputError, match="--preset: expected one of smoke, cpu, full, got 'large'"):
        reproduce_disentanglement(tmp_path, preset="large")
    with pytest.raises(InputError, match="--steps: the run in"):
        small(done, rows=["beta-vae"], steps=13)


def test_the_full_preset_is_the_paper_s():
    (run, *_, last) = study._runs(PRESETS["full"], Path("out"), range(10), None)
    settings = run.settings
    assert (settings.steps, settings.kl_warmup, settings.batch_size, settings.lr) == (300_000, 100_000, 64, 1e-4)
    assert (settings.architecture, settings.likelihood, settings.latent_dim) == ("conv-small", "cross-entropy", 10)
    assert last.settings.jacobian_l1 == 0.4 and last.settings.seed == 9
    assert set(PUBLISHED) == {row.name for row in ROWS}
    assert PRESETS["full"].evaluation["samples"] == 10_000 and PRESETS["full"].evaluation["clusters"] == 20


def test_a_run_is_measured_where_its_images_have_factors(done, cli, monkeypatch):
    monkeypatch.setattr(further, "disentanglement", partial(disentanglement, samples=100))
    run = done / "jl1-0.1" / "seed-0"
    before = (run / "evaluation.json").read_text()
    status, out, _ = cli(
        *("evaluate", run, "--disentanglement", "--clusters", "1", "--limit", "20", "--device", "cpu", "--no-progress")
    )
    assert status == 0
    found = json.loads((run / "evaluation.json").read_text())["disentanglement"]
    (run / "evaluation.json").write_text(before)
    assert list(found["local"]) == RHOS and found["samples"] == 100 and found["clusters"] == 1
    assert f"disentanglement, ρ = 0.1: MIG {found['local']['0.1']['mig']['mean']:.3f}, modularity" in out
    assert "disentanglement, global: MIG" in out
