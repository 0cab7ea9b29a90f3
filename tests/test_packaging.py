"""What a user installs: sdist, wheel and editable install hold all four packages and no stray top-level name."""

import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pyro_avae", "models", "guides", "experiments", "pyproject.toml", "README.md", "LICENSE")

IMPORT_ALL = """
import pyro_avae
from pyro_avae import AVAE_ELBO
from pyro_avae.models import VAE, ExtendedVAE, PPCA
from pyro_avae.guides import AmortizedGuide, AVAEGuide
from pyro_avae.experiments.cli import main
print(pyro_avae.__file__)
"""

NO_STRAY_NAMES = """
from importlib.util import find_spec
assert not any(map(find_spec, ("models", "guides", "experiments")))
"""


def run(*command, cwd, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(kind, source, out):
    script = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    return out / run(sys.executable, "-c", script, cwd=source).splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of what the project ships, so that building leaves nothing in the checkout."""
    copy = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The wheel built from the unpacked sdist, as an installer from source would."""
    out = tmp_path_factory.mktemp("dist")
    sdist = build("sdist", source, out)
    # In a process of its own: which filter a Python unpacks with, and whether it warns of it, is no matter of ours.
    run(sys.executable, "-m", "tarfile", "-e", str(sdist), str(out / "unpacked"), cwd=out)
    return build("wheel", next((out / "unpacked").iterdir()), out)


def test_wheel_holds_every_source_file(wheel, tmp_path):
    shutil.unpack_archive(wheel, tmp_path, format="zip")
    shipped = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    expected = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pyro_avae").rglob("*.py")}
    for folder in ("models", "guides", "experiments"):
        expected |= {f"pyro_avae/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / folder).rglob("*.py")}
    assert expected <= shipped
    assert {"pyro_avae/py.typed", "pyro_avae/report/report.html.jinja"} <= shipped
    assert {name.split("/")[0] for name in shipped if "dist-info" not in name} == {"pyro_avae"}


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel installed and nothing else."""
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", str(target), str(wheel), cwd=target)
    return target


def test_wheel_imports_from_outside_the_repository(installed, tmp_path):
    found = run(sys.executable, "-c", NO_STRAY_NAMES + IMPORT_ALL, cwd=tmp_path, PYTHONPATH=str(installed))
    assert Path(found.strip()).is_relative_to(installed)


def test_installed_wheel_works_when_started_in_the_checkout(installed, source):
    """There the source folder shadows the installed package; its own root stands in for the three others."""
    found = run(sys.executable, "-c", IMPORT_ALL, cwd=source, PYTHONPATH=str(installed))
    assert Path(found.strip()).is_relative_to(source)


def test_editable_install_imports_from_outside_the_repository(source, tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    # What is installed here (torch, pyro, pip itself) is at hand there, all but this project, which is installed anew.
    for installed_here in (path for folder in site.getsitepackages() for path in Path(folder).iterdir()):
        link = packages / installed_here.name
        this_project = link.name.startswith(("pyro_avae", "__editable__"))
        if link.suffix != ".pth" and not this_project and not link.exists():
            link.symlink_to(installed_here)
    pip = (str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation")
    run(*pip, "--editable", str(source), cwd=tmp_path)
    found = run(str(python), "-c", NO_STRAY_NAMES + IMPORT_ALL, cwd=tmp_path)
    assert Path(found.strip()).is_relative_to(source)
