"""The tables made of results: the paper's row above ours, spreads, sweep in order, cells of the ablation."""

import pytest

from pyro_avae.experiments.markdown import markdown
from pyro_avae.experiments.results import summary
from pyro_avae.experiments.results_tables import (
    autoattack_table,
    balanced_table,
    comparison,
    explained,
    tables,
    variant_table,
)
from pyro_avae.experiments.rows import ABLATION, SWEEP


def test_the_paper_s_row_is_above_ours(row, document) -> None:
    table = comparison(document(row("vae", [0.9, 0.8]), row("own", [0.5])))
    assert table is not None
    assert [cells[0] for cells in table.rows] == ["VAE, the paper", "VAE, ours", "OWN"]
    assert list(table.emphasised) == [0]
    assert table.headings == [
        "row",
        "digit 0",
        "digit 0.1",
        "time",
        "NLL",
        "SSE",
        "FID, own features",
        "steps",
        "seeds",
    ]
    assert table.rows[0] == ["VAE, the paper", "93.8", "5.8", "×1", "1369.2", "(23.0)", "12.44 (Inception)", "", ""]
    # Two seeds: the standard error is half of their distance.
    assert table.rows[1][:3] == ["VAE, ours", "85.0 ± 5.0", "42.5 ± 2.5"]
    assert table.rows[1][3:] == ["–", "1369.2", "23.00", "–", "10", "2"]
    assert table.rows[2][1] == "50.0"
    assert "± one standard error over seeds" in table.caption


def test_one_seed_has_no_error(row, document) -> None:
    table = comparison(document(row("vae", [0.9])))
    assert table is not None
    assert table.rows[1][1] == "90.0"
    assert table.caption.endswith("One seed.")


def test_balanced_accuracy_is_shown_where_a_class_is_most_of_the_images(row, document) -> None:
    assert balanced_table(document(row("vae", [0.9]))) is None
    table = balanced_table(document(row("vae", [0.9], majority=0.97)))
    assert table is not None
    assert "digit 97.0" in table.caption
    assert table.rows == [["VAE", "90.0", "45.0"]]


def test_autoattack_has_a_table_where_it_ran(row, document) -> None:
    plain, strong = row("vae", [0.9]), row("avae", [0.9])
    assert autoattack_table(document(plain)) is None
    strong["ours"]["accuracy_autoattack"] = {"digit": {"0.1": summary([0.125])}}
    table = autoattack_table(document(plain, strong))
    assert table is not None
    assert (table.headings, table.rows) == (["row", "digit 0.1"], [["AVAE", "12.5"]])


def test_the_sweep_is_in_the_order_of_rho(row, document) -> None:
    rows = [row(f"rho-{rho}", [rho / 2], rho=rho) for rho in (0.975, 0.0, 0.5)]
    table = variant_table(document(*rows), SWEEP)
    assert table is not None
    assert [cells[0] for cells in table.rows] == ["0", "0.5", "0.975"]
    assert table.headings == ["ρ", "digit 0", "digit 0.1", "consistency KL, nats", "SSE"], "nothing re-encoded"
    assert table.rows[1] == ["0.5", "25.0", "12.5", "1.50", "23.00"]


def test_the_ablation_names_its_cells(row, document) -> None:
    rows = [
        row("mean-cut", [0.1], view="mean", gradient="cut", input_noise=0.5),
        row("avae", [0.2]),
        row("sample-cut", [0.3], gradient="cut"),
    ]
    table = variant_table(document(*rows), ABLATION)
    assert table is not None
    assert [cells[0] for cells in table.rows] == [
        "sample, through z, as it is",
        "sample, cut, as it is",
        "mean, cut, noisy",
    ]


def test_markdown_holds_every_table(row, document) -> None:
    page = markdown("Rows", ["Words."], tables(document(row("vae", [0.9], majority=0.97))))
    assert page.startswith("# Rows\n\nWords.\n\nThe paper's rows in italics")
    assert "| *VAE, the paper* | *93.8* | *5.8* |" in page
    assert page.count("| VAE") == 2
    assert page.count("\n| :--- |") == 4


def test_the_columns_are_explained(row, document) -> None:
    attack, rest = explained(document(row("vae", [0.9])))
    assert "40 steps, 2 starts, the first 1000 test images" in attack
    assert "in the features of features of a|b, and can be compared among our rows only" in rest


def test_no_rows_no_tables(document) -> None:
    assert tables(document()) == []


@pytest.mark.parametrize(("values", "mean", "error"), [([1.0, 3.0, None], 2.0, 1.0), ([float("nan"), 1.0], 1.0, None)])
def test_what_is_not_finite_is_left_out(values, mean: float, error: float | None) -> None:
    found = summary(values)
    assert found is not None
    assert (found["mean"], found["standard_error"]) == (mean, error)
