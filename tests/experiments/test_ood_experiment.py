"""The experiment on Fashion-MNIST and MNIST at its smallest size."""

import json

import pytest

from pyro_avae.errors import InputError
from pyro_avae.experiments.ood_experiment import PRESETS, main, ood_experiment


@pytest.mark.slow
def test_the_smallest_preset_writes_everything_and_goes_on_where_it_was(tmp_path, data_root, capsys):
    main(
        ["--preset", "smoke", "--data-root", str(data_root), "--out", str(tmp_path), "--device", "cpu", "--no-progress"]
    )
    assert "written to" in capsys.readouterr().out
    first = json.loads((tmp_path / "results.json").read_text())
    assert set(first["methods"]) == {"vae", "avae"}
    for scored in first["methods"].values():
        assert scored["absent"] == {}
        assert all("values" not in score for score in scored["scores"].values())
    for name in ("table.md", "vae.svg", "avae.svg", "report.html"):
        assert (tmp_path / name).stat().st_size > 0
    again = ood_experiment(tmp_path, preset="smoke", data_root=data_root)
    assert again["methods"] == first["methods"]


def test_an_unknown_preset_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"\A--preset: expected one of smoke, cpu, full, got 'large'"):
        ood_experiment(tmp_path, preset="large")
    with pytest.raises(InputError, match="expected one of smoke, cpu, full"):
        main(["--preset", "large", "--out", str(tmp_path), "--device", "cpu"])


def test_one_seed_has_no_waic_and_the_full_preset_has_several():
    assert PRESETS["full"].seeds >= 2 and PRESETS["full"].background
    assert PRESETS["full"].limit is None
