"""``reproduce density``: its rows for real on made-up binary images, its table, and the published numbers."""

import json
import math

import numpy as np
import pytest

from pyro_avae.experiments import reproduction, row_runs
from pyro_avae.experiments.density import DensityReproduction, _elbo, _paired
from pyro_avae.experiments.density_rows import DENSITY_DATASETS, DENSITY_ROWS, PUBLISHED_NLL
from pyro_avae.experiments.density_tables import density_table, density_words
from pyro_avae.experiments.paper_experiments import EXPERIMENTS
from pyro_avae.experiments.redraw import redraw
from pyro_avae.experiments.reproduce import reproduce
from pyro_avae.experiments.row_runs import row_run


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root with static MNIST of 60 training and 40 test images: a bar, up to five columns from the left."""
    folder = tmp_path_factory.mktemp("data") / "MNIST_static"
    folder.mkdir()
    for part, count in (("train", 60), ("test", 40)):
        images = np.zeros((count, 28, 28), dtype=int)
        images[np.arange(count), :, np.arange(count) % 5] = 1
        lines = "".join(" ".join(map(str, image.ravel())) + "\n" for image in images)
        (folder / f"binarized_mnist_{part}.amat").write_text(lines)
    return folder.parent


@pytest.fixture(scope="module")
def done(root, tmp_path_factory):
    """The folder of the finished rows; read it, do not change it."""
    out = tmp_path_factory.mktemp("density") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pyro_avae.experiments.density.write_report", lambda *args, **options: None)
        reproduce("density", out, preset="smoke", data_root=root, device="cpu", steps=10)
    return out


def strict(path):
    return json.loads(path.read_text(), parse_constant=lambda constant: pytest.fail(constant))


def test_every_row_has_its_numbers(done):
    document = strict(done / "results.json")
    assert [row["row"] for row in document["rows"]] == [row.name for row in DENSITY_ROWS]
    assert document["failed"] == []
    for row in document["rows"]:
        ours = row["ours"]
        measured = strict(done / row["row"] / "seed-0" / "evaluation.json")
        assert (ours["steps"], ours["seeds"]) == (10, [0])
        assert ours["nll"]["mean"] == pytest.approx(-measured["log_likelihood"])
        values = measured["log_likelihood_by_image"]
        assert len(values) == measured["importance_sampling"]["num_images"] == 40
        # Each image's estimate is rounded to a thousandth.
        assert ours["nll"]["mean"] == pytest.approx(-np.mean(values), abs=1e-3)
        error = np.std(values, ddof=1) / math.sqrt(40)
        assert ours["nll_error_over_images"]["mean"] == pytest.approx(error, abs=1e-3)
        assert ours["elbo"]["mean"] == pytest.approx(measured["bound"]["x"] - ours["kl"]["mean"])
        assert measured["tasks"] == {}
    vae, *others = document["rows"]
    assert vae["ours"]["nll_difference"] is None
    for row in others:
        expected = row["ours"]["nll"]["mean"] - vae["ours"]["nll"]["mean"]
        assert row["ours"]["nll_difference"]["mean"] == pytest.approx(expected, abs=2e-3)


def test_the_elbo_leaves_out_further_encodings_alone():
    terms = {"x": -70.0, "z": -20.0, "total": -95.0}
    assert _elbo({"bound": {**terms, "z_aux": -5.0}}) == -90
    assert _elbo({"bound": {**terms, "z_aux": -5.0, "z_aux_2": -1.0, "z_smooth": -1.0}}) == -90
    assert _elbo({"bound": {**terms, "z_start": 30.0, "momentum": 40.0, "momentum_end": -41.0}}) == -61
    assert _elbo({"bound": {**terms, "z": None}}) is None


def test_differences_are_taken_image_by_image():
    one, other = ({"log_likelihood_by_image": values} for values in ([-3.0, -12.0, None], [-1.0, -8.0, -1.0]))
    assert _paired(one, other) == (pytest.approx(3.0), pytest.approx(1.0))
    assert _paired(one, one) == _paired(one, None) == (None, None)
    nothing = {"log_likelihood_by_image": [None, None, None]}
    assert _paired(one, nothing) == (None, None)


def test_the_table_has_ours_then_the_published_ones(done):
    document = strict(done / "results.json")
    table = density_table(document)
    assert table is not None
    published = PUBLISHED_NLL["binarized-mnist"]
    assert [cells[0] for cells in table.rows[: len(DENSITY_ROWS)]] == [row.label for row in DENSITY_ROWS]
    assert len(table.emphasised) == len(published) == len(table.rows) - len(DENSITY_ROWS)
    assert ["VLAE, published", "79.03"] in [list(cells[:2]) for cells in table.rows]
    assert ["DRAW, published", "<80.97"] in [list(cells[:2]) for cells in table.rows]
    assert table.rows[0][1] == f"{document['rows'][0]['ours']['nll']['mean']:.2f}"
    page = (done / "table.md").read_text()
    assert "30 samples of each of the first 40 test images" in page
    assert "*VLAE, published*" in page
    _, second = density_words({**document, "dataset": "omniglot"})
    assert "trained for 10 steps" in second and "the split and the grey images of Burda" in second
    assert "Burda" not in density_words(document)[1]
    assert density_table({"rows": []}) is None and density_words({"rows": []}) == []


def test_again_nothing_is_run(done, root, monkeypatch):
    monkeypatch.setattr(row_runs, "train_run", lambda *args, **options: pytest.fail("trained"))
    monkeypatch.setattr(DensityReproduction, "measure", lambda *args: pytest.fail("measured"))
    monkeypatch.setattr(DensityReproduction, "write_report", lambda *args: None)
    before = strict(done / "results.json")
    again = reproduce("density", done, preset="smoke", data_root=root, device="cpu", steps=10)
    assert again["rows"] == before["rows"]


def test_no_figure_is_drawn_of_accuracies_that_there_are_not(done):
    assert redraw(done / "results.json") == []
    assert not list(done.glob("*.svg"))


def test_the_report_has_the_table(root, tmp_path):
    reproduce("density", tmp_path / "out", preset="smoke", data_root=root, device="cpu", rows=["vae"], steps=2)
    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("Densities of binarized-mnist", "Negative log-likelihood", "VLAE, published", "79.03"):
        assert words in page


def test_published_numbers_are_of_data_sets_that_there_are(tmp_path):
    assert set(PUBLISHED_NLL) == set(DENSITY_DATASETS) == set(EXPERIMENTS["density"].datasets)
    assert all(one.to_json().keys() == {"model", "nll", "bound"} for rows in PUBLISHED_NLL.values() for one in rows)
    names = [row.name for row in DENSITY_ROWS]
    assert len(set(names)) == len(names) and "vae" in names
    settings = {"dataset": "binarized-mnist", **EXPERIMENTS["density"].settings}
    made = [row_run(row, 0, out=tmp_path, settings=settings, evaluation={}, samples=2).settings for row in DENSITY_ROWS]
    assert {one.likelihood for one in made} == {"bernoulli"}


def test_the_command_line_names_it(cli, refused, tmp_path):
    message = refused("reproduce", "density", "--dataset", "celeba", "--out", tmp_path / "out", "--no-progress")
    assert "--dataset: expected binarized-mnist or omniglot or caltech-silhouettes, got 'celeba'" in message
    message = refused("reproduce", "density", "--data-root", tmp_path, "--out", tmp_path / "out", "--no-progress")
    assert message.startswith("binarized-mnist: expected")
    assert not (tmp_path / "out" / "results.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dataset", DENSITY_DATASETS)
def test_all_rows_on_the_genuine_images(dataset, data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if dataset == "omniglot" and not (data_root / "omniglot-py").is_dir():
        pytest.skip(f"no Omniglot in {data_root}")
    monkeypatch.setattr(reproduction.Reproduction, "write_report", lambda *args: None)
    # The lossy row, whose samples are drawn one pixel after another, on one of them: it takes minutes.
    rows = [row.name for row in DENSITY_ROWS if row.name != "vlae" or dataset == "binarized-mnist"]
    document = reproduce(
        "density", tmp_path / "out", preset="smoke", dataset=dataset, data_root=data_root, device="cpu", rows=rows
    )
    assert [row["row"] for row in document["rows"]] == rows
    # A pixel that is black or white with even odds takes log 2.
    assert all(0 < row["ours"]["nll"]["mean"] < 784 * math.log(2) for row in document["rows"])
