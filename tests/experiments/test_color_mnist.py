"""The script of ``experiments/color_mnist.py`` runs from top to bottom, on real MNIST and on the embedded digits."""

import re

import pytest

from pyro_avae.experiments import color_mnist


def printed(monkeypatch, capsys, *argv):
    monkeypatch.setattr("sys.argv", ["color_mnist", *map(str, argv)])
    monkeypatch.setattr(color_mnist, "LOG_EVERY", 30)
    color_mnist.main()
    return capsys.readouterr().out


def losses(text):
    return [float(number) for number in re.findall(r"loss (-?[\d.]+)", text)]


def test_on_real_mnist(monkeypatch, capsys, data_root):
    argv = ["--data-root", data_root, "--steps", 60, "--limit", 150, "--lr", "1e-3"]
    text = printed(monkeypatch, capsys, *argv)
    first, last = losses(text)
    assert last < first
    clean, attacked = re.search(r"color\s+eps 0.0: ([\d.]+)  eps 0.1: ([\d.]+)", text).groups()
    assert float(clean) > 0.5 and float(attacked) <= float(clean)


def test_on_embedded_digits(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, "--dataset", "color-digits", "--steps", 31, "--limit", 120)
    assert len(losses(text)) == 2 and "bound" in text


def test_its_docstring_opens_with_the_command():
    first = next(line for line in color_mnist.__doc__.splitlines() if line.startswith("    "))
    assert first.split()[:3] == ["python", "-m", "pyro_avae.experiments.color_mnist"]


def test_missing_data_is_said(monkeypatch, tmp_path):
    from pyro_avae.errors import InputError

    monkeypatch.setattr("sys.argv", ["color_mnist", "--data-root", str(tmp_path)])
    with pytest.raises(InputError, match="color-digits, which needs no download"):
        color_mnist.main()
