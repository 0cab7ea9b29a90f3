"""Who may import whom, and that importing leaves no trace."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "guides", "experiments")
FILES = {room: sorted((ROOT / room).rglob("*.py")) for room in ("pyro_avae", *ROOMS)}


def package_of(path: Path) -> str:
    """The package that a source file belongs to once installed, e.g. ``pyro_avae.models``."""
    folders = path.relative_to(ROOT).parent.parts
    return ".".join(folders if folders[0] == "pyro_avae" else ("pyro_avae", *folders))


def imported(source: str, *, package: str) -> set[str]:
    """Every module that the source may import, at any depth, with what ``from`` takes out of it as a full name."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def rooms_in(modules: set[str]) -> set[str]:
    """The rooms beside the engine among the modules, under the installed or the source's name."""
    parts = [module.split(".") for module in modules]
    installed = {p[1] for p in parts if p[0] == "pyro_avae" and len(p) > 1 and p[1] in ROOMS}
    return installed | {p[0] for p in parts if p[0] in ROOMS}


@pytest.mark.parametrize(
    ("source", "package", "expected"),
    [
        ("def f():\n    from pyro_avae.models import VAE", "pyro_avae.data", {"models"}),
        ("from pyro_avae import guides", "pyro_avae", {"guides"}),
        ("from . import experiments", "pyro_avae", {"experiments"}),
        ("from ..models.vae import VAE", "pyro_avae.data", {"models"}),
        ("import models", "pyro_avae", {"models"}),
        ("import pyro_avae.experiments.cli as cli", "pyro_avae", {"experiments"}),
        ("from .vae import VAE", "pyro_avae.models", {"models"}),
        ("import torch.nn.modules\nfrom torch import models_like", "pyro_avae", set()),
    ],
)
def test_the_check_itself_sees_every_way_to_import(source, package, expected):
    assert rooms_in(imported(source, package=package)) == expected


@pytest.mark.parametrize(
    ("room", "allowed"),
    [("pyro_avae", set()), ("models", {"models", "guides"}), ("guides", {"models", "guides"})],
)
def test_imports_point_one_way(room, allowed):
    assert len(FILES[room]) >= 4
    wrong = {
        str(path.relative_to(ROOT)): sorted(extra)
        for path in FILES[room]
        if (extra := rooms_in(imported(path.read_text(), package=package_of(path))) - allowed)
    }
    assert wrong == {}


def test_nobody_imports_the_source_folders_by_their_own_name():
    """``import models`` would work in a checkout alone, and take a top-level name from a user's own project."""
    for room, paths in FILES.items():
        for path in paths:
            tops = {module.split(".")[0] for module in imported(path.read_text(), package=package_of(path))}
            assert not tops & set(ROOMS), f"{path} of {room}"


PROBE = """
import logging, os, random, sys, warnings
import numpy, torch, pyro
import pyro.infer, pyro.optim, pyro.distributions

def state():
    return {
        "validation": (pyro.infer.util.is_validation_enabled(), torch.distributions.Distribution._validate_args,
                       pyro.distributions.distribution.Distribution._validate_args
                       if hasattr(pyro.distributions.distribution.Distribution, "_validate_args") else None),
        "pyro settings": pyro.settings.get(),
        "param store": list(pyro.get_param_store()),
        "pyro stack": list(pyro.poutine.runtime._PYRO_STACK),
        "dtype": torch.get_default_dtype(),
        "device": str(torch.get_default_device()),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul": torch.get_float32_matmul_precision(),
        "grad": torch.is_grad_enabled(),
        "random": (torch.get_rng_state().tolist(), random.getstate(), str(numpy.random.get_state())),
        "numpy": (numpy.geterr(), numpy.get_printoptions()),
        "print": str(vars(torch._tensor_str.PRINT_OPTS)),
        "logging": (list(logging.root.handlers), logging.root.level, logging.root.manager.disable),
        "our loggers": [(name, logger.handlers, logger.level, logger.propagate)
                        for name, logger in sorted(logging.root.manager.loggerDict.items())
                        if name.startswith("pyro_avae") and isinstance(logger, logging.Logger)
                        and (logger.handlers or logger.level or not logger.propagate)],
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "kl": len(torch.distributions.kl._KL_REGISTRY),
        "hooks": (sys.excepthook, sys.displayhook),
    }

before = state()
import pyro_avae, pyro_avae.models, pyro_avae.guides
import pyro_avae.data, pyro_avae.runs, pyro_avae.training
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, {key: (before[key], after[key]) for key in changed}
for room in ("models", "guides", "experiments"):
    assert room not in sys.modules
assert "pyro_avae.experiments" not in sys.modules
assert "sklearn" not in sys.modules
"""


def test_importing_changes_no_global_state():
    command = [sys.executable, "-W", "error", "-c", PROBE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
