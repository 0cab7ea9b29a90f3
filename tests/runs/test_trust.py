"""Loading imports what its user asked for, and nothing else."""

import importlib
import os
import sys

import pytest

import pyro_avae
from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import METHODS, builder_of
from pyro_avae.runs.run_folder import RunFolder
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import import_builder
from pyro_avae.runs.trust import LIBRARY, check_trusted, remember

BUILDER = "a_module_of_theirs:build"


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """An empty list of builders."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "pyro_avae" / "builders"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that leaves a mark where it is imported, found on the path."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "a_module_of_theirs.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('mark').touch()\ndef build(settings): return 3\n"
    )
    monkeypatch.syspath_prepend(folder)
    sys.modules.pop("a_module_of_theirs", None)
    yield folder
    sys.modules.pop("a_module_of_theirs", None)


def refused(builder, **options):
    with pytest.raises(InputError) as caught:
        check_trusted(builder, where="RUN", **options)
    (line,) = str(caught.value).splitlines()
    return line


def test_the_library_s_own_builder_is_the_only_one_that_needs_no_word():
    assert {builder_of(name) for name in METHODS} == {LIBRARY}
    check_trusted(LIBRARY, where="RUN")
    for near in (
        f"{LIBRARY}.__globals__",
        f"{LIBRARY}.__class__.mro",
        "pyro_avae.experiments.methods:Method",
        "pyro_avae.experiments.methods:build_",
        "pyro_avae.experiments.triples:sys.exit",
        "builtins:exec",
    ):
        assert "--trust" in refused(near)
    for no_builder in ("", ":", "a", "a:", ":b", "a:b c", "a\n:b", "../a:b", f" {LIBRARY}", f"{LIBRARY}\n"):
        assert "expected module:function" in refused(no_builder)


def test_a_run_with_another_builder_is_refused_before_its_module_is_imported(tmp_path, module):
    folder = RunFolder(tmp_path / "run")
    folder.begin()
    folder.write_settings(Settings(builder=BUILDER))
    with pytest.raises(InputError) as caught:
        pyro_avae.load(folder.path)
    line = str(caught.value)
    assert line.startswith(f"{folder.config}: builder: expected ") and len(line.splitlines()) == 1
    assert "'a_module_of_theirs' of" in line and f"--trust {BUILDER}" in line and f"trust='{BUILDER}'" in line
    with pytest.raises(InputError, match="expected the library's own"):
        import_builder(BUILDER, trust="a_module_of_theirs:other")
    assert not (module / "mark").exists()
    with pytest.raises(InputError, match="no intact checkpoint"):
        pyro_avae.load(folder.path, trust=BUILDER)
    assert (module / "mark").exists()
    with pytest.raises(InputError, match="no intact checkpoint"):
        pyro_avae.load(folder.path, trust=["other:build", BUILDER])


def test_what_was_trained_with_is_trusted_and_listed_once(module, state):
    refused(BUILDER)
    for _ in range(2):
        remember(BUILDER)
        remember(LIBRARY)
    assert state.read_text() == f"{BUILDER} {module / 'a_module_of_theirs.py'}\n"
    assert state.stat().st_mode & 0o077 == 0 or os.name != "posix"
    check_trusted(BUILDER, where="RUN")
    refused("a_module_of_theirs:buil")
    refused("a_module_of_theirs:build.__globals__")
    assert not (module / "mark").exists()


def test_a_module_of_a_known_name_from_elsewhere_is_not_that_module(module, tmp_path, monkeypatch):
    remember(BUILDER)
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "a_module_of_theirs.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path / "download")
    importlib.invalidate_caches()
    assert str(tmp_path / "download" / "a_module_of_theirs.py") in refused(BUILDER)
    check_trusted(BUILDER, trust=BUILDER, where="RUN")


def test_a_known_module_that_is_gone_is_told_by_the_import(module, monkeypatch):
    remember(BUILDER)
    (module / "a_module_of_theirs.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(InputError, match=r"importing a_module_of_theirs failed.*run from the folder that holds"):
        import_builder(BUILDER)


@pytest.mark.parametrize("damage", ["folder", "bytes", "file in the way"])
def test_a_list_that_cannot_be_used_trusts_nobody_and_is_no_error(state, module, damage):
    if damage == "folder":
        state.mkdir(parents=True)
    elif damage == "bytes":
        state.parent.mkdir(parents=True)
        state.write_bytes(b"\xff\xfe" + BUILDER.encode() + b"\n")
    else:
        state.parent.parent.write_text("")
    remember(BUILDER)
    refused(BUILDER)


def test_what_is_in_no_file_is_not_remembered(state):
    for builder in ("sys:exit", "no_module_of_this_name:build"):
        remember(builder)
        refused(builder)
    assert not state.exists()


def test_without_a_home_folder_nobody_is_remembered(module, monkeypatch):
    for name in ("XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    remember(BUILDER)
    refused(BUILDER)
