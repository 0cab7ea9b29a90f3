"""The code of the pages runs from top to bottom, and their commands are commands."""

import re
import sys
from pathlib import Path

import pyro
import pytest

from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.experiments.cli import main
from pyro_avae.experiments.methods import Method
from pyro_avae.runs.settings import Settings

DOCS = Path(__file__).resolve().parent.parent / "docs"
HOW_TO = (DOCS / "own-method.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", HOW_TO, flags=re.DOTALL)


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The folder with the file that the first block says to save."""
    (tmp_path / "blurred.py").write_text(blocks("python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("blurred", None)


def test_the_code_runs_and_the_check_passes(own_module, capsys):
    assert blocks("python")[0].startswith("# blurred.py")
    namespace = {}
    for block in blocks("python")[1:]:
        exec(compile(block, "own-method.md", "exec"), namespace)
    assert namespace["check"].passed and "passed: |z|" in capsys.readouterr().out
    method = namespace["METHODS"]["blurred"]
    assert isinstance(method, Method)
    settings = Settings(method="blurred", hidden=(8,), latent_dim=3, image_shape=(1, 4, 4), consistency_weight=0.5)
    model = method.target(settings)
    guide = method.guide(settings, model)
    assert set(method.elbo(settings).terms(model, guide, namespace["torch"].rand(4, 1, 4, 4))) == {
        "x",
        "z",
        "z_blurred",
    }


def test_the_hidden_noise_that_it_warns_of_is_refused(own_module):
    from pyro_avae.errors import InputError

    hidden = blocks("python")[0].replace(
        "return auxiliary(name, dist.Normal(smooth, self.scale).to_event(3))",
        "import torch; return auxiliary(name, dist.Delta(smooth + 0.1 * torch.randn_like(smooth), event_dim=3))",
    )
    (own_module / "blurred.py").write_text(hidden)
    with pytest.raises(InputError, match="random"):
        exec(compile(blocks("python")[1], "own-method.md", "exec"), {})


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_the_pictures_are_there(page):
    for picture in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text()):
        assert (DOCS / picture).is_file(), picture


def test_the_commands_train_evaluate_and_report_it(own_module, capsys):
    lines = [line.split()[1:] for line in blocks("bash")[0].splitlines()]
    assert [line[0] for line in lines] == ["train", "evaluate", "report"]
    small = {
        "train": ["--hidden", "8", "--latent-dim", "3", "--limit", "60", "--no-progress"],
        "evaluate": ["--limit", "10", "--steps", "1", "--restarts", "1", "--no-progress"],
        "report": [],
    }
    for words in lines:
        words = ["3" if word == "500" else word for word in words]
        assert main([*words, *small[words[0]]]) == 0, capsys.readouterr().err
    assert (own_module / "report.html").is_file()


def test_the_compiled_step_of_a_program_of_one_s_own_learns(monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)  # inductor has tests of its own
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "compiled-steps.md").read_text(), flags=re.DOTALL)
    namespace = {}
    with pyro.validation_enabled(False):
        exec(compile(code, "compiled-steps.md", "exec"), namespace)
    assert float(namespace["losses"][-1]) < 0.2 * float(namespace["losses"][0])
    assert float(namespace["model"].noise.detach()) < 0.2


def test_the_code_of_the_page_on_influence_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "influence.md").read_text(), flags=re.DOTALL):
        exec(compile(block, "influence.md", "exec"), namespace)
    assert namespace["found"].influence.shape == (60, 5) and len(namespace["found"].steps) == 10


def test_the_tests_that_reliability_names_are_there():
    page = (DOCS / "reliability.md").read_text()
    tests = Path(__file__).resolve().parent
    files = re.findall(r"`((?:\w+/)*test_\w+\.py)", page)
    assert len(files) > 20
    for name in files:
        assert list(tests.rglob(name)) if "/" not in name else (tests / name).is_file(), name
    everything = "\n".join(path.read_text() for path in tests.rglob("test_*.py"))
    names = re.findall(r"::(test_\w+)", page)
    assert len(names) > 12
    for name in names:
        assert f"def {name}(" in everything, name
