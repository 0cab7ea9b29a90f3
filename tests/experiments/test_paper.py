"""The published numbers, and that every one of them has its row; rows and presets."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.paper import CELEBA, COLOR_MNIST, gaussian_nll
from pyro_avae.experiments.paper_experiments import EXPERIMENTS
from pyro_avae.experiments.presets import PRESETS
from pyro_avae.experiments.reproduction import Reproduction
from pyro_avae.experiments.row_runs import row_run
from pyro_avae.experiments.rows import ABLATION, CELEBA_ROWS, COLOR_ROWS, SWEEP
from pyro_avae.runs.settings import Settings


@pytest.mark.parametrize(
    ("row", "task", "radius", "expected"),
    [
        ("vae", "digit", "0.0", 0.938),
        ("vae", "color", "0.1", 0.199),
        ("avae", "digit", "0.1", 0.881),
        ("avae", "digit", "0.2", 0.548),
        ("avae", "color", "0.2", 0.877),
        ("se-0.1", "digit", "0.2", 0.018),
        ("se-0.2", "digit", "0.2", 0.873),
        ("se-avae-0.1", "color", "0.2", 0.6),
        ("se-avae-0.2", "digit", "0.1", 0.942),
        ("avae-ss", "digit", "0.1", 0.728),
    ],
)
def test_table_1(row: str, task: str, radius: str, expected: float) -> None:
    assert COLOR_MNIST[row].accuracy[task][radius] == expected


@pytest.mark.parametrize(
    ("row", "task", "radius", "expected"),
    [
        ("avae", "Bald", "0.1", 0.852),
        ("avae", "Smiling", "0.1", 0.036),
        ("se-5", "Eyeglasses", "0.1", 0.203),
        ("se-5", "Smiling", "0.1", 0.031),
        ("se-20", "Wearing_Necklace", "0.0", 0.88),
        ("se-avae-5", "Wearing_Lipstick", "0.1", 0.115),
        ("avae-ss", "Mustache", "0.0", 0.949),
    ],
)
def test_table_2(row: str, task: str, radius: str, expected: float) -> None:
    assert CELEBA[row].accuracy[task][radius] == expected


def test_times_and_distances() -> None:
    times = {"vae": 1, "se-0.1": 4, "se-0.2": 4, "avae": 1.5, "se-avae-0.1": 4.7, "se-avae-0.2": 4.7, "avae-ss": 1.5}
    assert {name: row.time for name, row in COLOR_MNIST.items()} == times
    assert COLOR_MNIST["avae-ss"].fid == COLOR_MNIST["vae"].fid == 12.44
    assert (CELEBA["se-20"].time, CELEBA["se-20"].mse, CELEBA["se-20"].fid) == (7.8, None, None)
    assert CELEBA["se-avae-5"].fid == 109.4


def test_the_column_mse_fits_a_gaussian_likelihood() -> None:
    """Squared errors that are left of the printed numbers, per image."""
    left = {name: row.mse - gaussian_nll(0.0, 3 * 28 * 28) for name, row in COLOR_MNIST.items()}
    assert left["vae"] == pytest.approx(23.0, abs=0.05)
    assert left["avae"] == pytest.approx(25.7, abs=0.05)
    assert left["avae-ss"] == pytest.approx(33.1, abs=0.05)
    left = {name: row.mse - gaussian_nll(0.0, 3 * 64 * 64) for name, row in CELEBA.items() if row.mse is not None}
    assert left["avae"] == pytest.approx(243.4, abs=0.05)
    assert left["avae-ss"] == pytest.approx(314.1, abs=0.05)
    # (D/2) log(2 pi nu) + SSE / (2 nu)
    assert gaussian_nll(3.0, 2, obs_variance=2.0) == pytest.approx(math.log(4 * math.pi) + 0.75)


@pytest.mark.parametrize("name", [name for name, experiment in EXPERIMENTS.items() if experiment.published])
def test_every_published_row_is_one_of_ours(name: str) -> None:
    experiment = EXPERIMENTS[name]
    assert set(experiment.published) <= {row.name for row in experiment.rows}
    tasks = experiment.tasks or ("digit", "color")
    radii = [str(float(radius)) for radius in experiment.epsilons]
    for row in experiment.published.values():
        assert set(row.accuracy) == set(tasks)
        assert all(list(values) == radii for values in row.accuracy.values())
    other = experiment.datasets[-1]
    assert experiment.paper("avae", experiment.datasets[0]) is not None
    assert len(experiment.datasets) == 1 or experiment.paper("avae", other) is None


@pytest.mark.parametrize("rows", [COLOR_ROWS, CELEBA_ROWS])
def test_rows_are_distinct_and_in_order(rows, tmp_path) -> None:
    names = [row.name for row in rows]
    assert len(set(names)) == len({row.label for row in rows}) == len(rows)
    for place, row in enumerate(rows):
        assert row.start_from is None or row.start_from in names[:place]
        assert not set(row.overrides) & set(METHODS[row.method].unused), row.name
    # Two rows of one method whose settings are the same would be trained twice.
    made = [_settings(row, tmp_path) for row in rows]
    for (_, one), (_, other) in itertools.combinations(zip(rows, made, strict=True), 2):
        assert one.first_difference(other) is not None


def _settings(row, out) -> Settings:
    made = row_run(row, 0, out=out, settings={}, evaluation={}, samples=2).settings
    # What a Gaussian's sampled or mean view has where no gradient is named.
    return replace(made, gradient=made.gradient or "through_z")


def test_sweep_and_ablation_are_complete(tmp_path) -> None:
    sweep = [_settings(row, tmp_path).rho for row in COLOR_ROWS if SWEEP in row.groups]
    assert sorted(sweep) == [0.0, 0.25, 0.5, 0.8, 0.9, 0.975, 0.99, 0.999]
    made = [_settings(row, tmp_path) for row in COLOR_ROWS if ABLATION in row.groups]
    cells = [(s.view, s.gradient, round(s.input_noise**2, 9)) for s in made]
    assert sorted(cells) == sorted(itertools.product(("sample", "mean"), ("through_z", "cut"), (0.0, 0.5)))


def test_full_is_the_paper_s_and_more_than_one_seed() -> None:
    full = PRESETS["full"]
    for name in ("color-mnist", "celeba"):
        settings = full.settings_for(name)
        assert (settings["steps"], settings["lr"], settings["batch_size"]) == (102_000, 1e-4, 64)
    assert full.seeds >= 3
    assert full.evaluation["limit"] is None


@pytest.mark.parametrize(("same", "attacked"), [(False, 50), (True, 100)])
def test_cpu_s_attacked_rows_train_half_the_steps_unless_all_are_to_train_the_same(same, attacked, tmp_path) -> None:
    whole = Reproduction(
        name="color-mnist",
        experiment=EXPERIMENTS["color-mnist"],
        dataset="color-mnist",
        preset_name="cpu",
        preset=PRESETS["cpu"],
        out=tmp_path,
        seeds=[0],
        settings={"steps": 100},
        evaluation={},
        device=torch.device("cpu"),
        command="",
        same_steps=same,
    )
    assert {run.settings.steps for run in whole.runs if run.row.method in ("se", "se-avae")} == {attacked}
    assert {run.settings.steps for run in whole.runs if run.row.method not in ("se", "se-avae")} == {100}


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_presets_are_settings(preset: str, name: str, tmp_path) -> None:
    experiment = EXPERIMENTS[name]
    for row in experiment.rows:
        settings = {**PRESETS[preset].settings_for(name), **experiment.settings, "dataset": experiment.datasets[0]}
        made = row_run(row, 1, out=tmp_path, settings=settings, evaluation={}, samples=2)
        assert made.settings.seed == 1
        assert made.folder.path == tmp_path / row.name / "seed-1"
        assert made.settings.image_shape == experiment.settings.get("image_shape", (3, 28, 28))
        for key, value in settings.items():
            if key not in (*METHODS[row.method].unused, *row.overrides):
                assert getattr(made.settings, key) == value, key
