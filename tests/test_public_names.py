"""What ``pyro_avae`` itself offers, imported when it is asked for."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyro_avae

ROOT = Path(__file__).resolve().parent.parent


def test_each_name_is_the_one_that_is_meant_whatever_was_imported_before():
    submodules = {info.name for info in pkgutil.iter_modules(pyro_avae.__path__)}
    for name in sorted(submodules):
        importlib.import_module(f"pyro_avae.{name}")
    assert not submodules & set(pyro_avae.__all__), "an import of the submodule would hide the name"
    namespace = {}
    exec("from pyro_avae import *", namespace)
    for name in pyro_avae.__all__:
        assert callable(namespace[name]) and namespace[name].__name__ == name
        assert namespace[name] is getattr(pyro_avae, name)
    assert set(pyro_avae.__all__) <= set(dir(pyro_avae))


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pyro_avae' has no attribute 'avae_elbo'"):
        pyro_avae.avae_elbo  # noqa: B018
    with pytest.raises(ImportError):
        from pyro_avae import avae_elbo  # noqa: F401


def test_importing_the_package_alone_takes_no_torch():
    code = "import sys, pyro_avae; assert 'torch' not in sys.modules; from pyro_avae import load; print(load.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "load\n"
