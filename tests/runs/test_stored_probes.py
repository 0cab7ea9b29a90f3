"""Stored probes: the same ones again, never another's, and no harm from a file that is damaged."""

import json
import os

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from pyro_avae.evaluation import LinearProbe, fit_probe
from pyro_avae.runs import StoredProbes, stored_probes


@pytest.fixture
def blobs():
    labels = torch.arange(120) % 3
    return torch.randn(120, 4) + labels[:, None], labels


@pytest.fixture
def fitted(monkeypatch):
    """How often a probe was fitted."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs)
        return fit_probe(*args, **kwargs)

    monkeypatch.setattr(stored_probes, "fit_probe", counted)
    return calls


def same(one: LinearProbe, other: LinearProbe) -> bool:
    return one.summary() == other.summary() and all(
        torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in ("weight", "bias", "mean")
    )


def test_a_probe_is_fitted_once_and_comes_back_exactly(tmp_path, blobs, fitted):
    path = tmp_path / "probes.safetensors"
    first = StoredProbes(path)(*blobs, 3, seed=1)
    again = StoredProbes(path)(*blobs, 3, seed=1)
    assert len(fitted) == 1
    assert same(first, again) and same(first, fit_probe(*blobs, 3, seed=1))


def test_other_features_labels_classes_or_seed_are_another_probe(tmp_path, blobs, fitted):
    path = tmp_path / "probes.safetensors"
    features, labels = blobs
    nudged = features.clone()
    nudged[0, 0] = torch.nextafter(nudged[0, 0], torch.tensor(torch.inf))
    cases = [(features, labels, 3, 0), (nudged, labels, 3, 0), (features, labels.flip(0), 3, 0)]
    cases += [(features, labels, 4, 0), (features, labels, 3, 1)]
    for x, y, classes, seed in cases * 2:
        probe = StoredProbes(path)(x, y, classes, seed=seed)
        assert same(probe, fit_probe(x, y, classes, seed=seed))
    assert len(fitted) == len(cases)


def test_a_reader_writes_nothing(tmp_path, blobs, fitted):
    path = tmp_path / "probes.safetensors"
    store = StoredProbes(path, write=False)
    assert same(store(*blobs, 3, seed=0), store(*blobs, 3, seed=0))
    assert len(fitted) == 1 and not path.exists()


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: c.replace(b"scale", b"skale")])
def test_a_damaged_file_holds_no_probes_and_is_replaced(tmp_path, blobs, fitted, damage, caplog):
    path = tmp_path / "probes.safetensors"
    StoredProbes(path)(*blobs, 3, seed=0)
    path.write_bytes(damage(path.read_bytes()))
    StoredProbes(path)(*blobs, 3, seed=0)
    assert "probes.safetensors: no probes read from it" in caplog.text
    StoredProbes(path)(*blobs, 3, seed=0)
    assert len(fitted) == 2
    with safe_open(path, framework="pt") as file:
        assert len(file.metadata()) == 1


FORGERIES = {
    "shape": lambda t, f: ({**t, "weight": torch.zeros(3, 9)}, f),
    "classes": lambda t, f: ({**t, "weight": torch.zeros(2, 4), "bias": torch.zeros(2)}, f),
    "features": lambda t, f: ({**t, "weight": torch.zeros(3, 5), "mean": torch.zeros(5)}, f),
    "dtype": lambda t, f: ({name: tensor.half() for name, tensor in t.items()}, f),
    "integers": lambda t, f: ({**t, "bias": torch.zeros(3, dtype=torch.int64)}, f),
    "nan": lambda t, f: ({**t, "mean": t["mean"] * torch.nan}, f),
    "missing": lambda t, f: ({"weight": t["weight"]}, f),
    "text": lambda t, f: (t, {**f, "scale": "wide"}),
    "zero": lambda t, f: (t, {**f, "scale": 0.0}),
    "infinite": lambda t, f: (t, {**f, "c": 1e999}),
    "huge": lambda t, f: (t, {**f, "c": 10**400}),
    "list": lambda t, f: (t, [f]),
    "deep": lambda t, f: (t, None),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_probe_is_fitted_again(tmp_path, blobs, fitted, forgery):
    path = tmp_path / "probes.safetensors"
    honest = StoredProbes(path)(*blobs, 3, seed=0)
    with safe_open(path, framework="pt") as file:
        ((key, text),) = file.metadata().items()
        tensors = {name: file.get_tensor(f"{key}.{name}") for name in ("weight", "bias", "mean")}
    tensors, facts = FORGERIES[forgery](tensors, json.loads(text))
    words = json.dumps(facts) if facts is not None else "[" * 100_000
    safetensors.torch.save_file({f"{key}.{name}": t for name, t in tensors.items()}, path, metadata={key: words})
    assert same(StoredProbes(path)(*blobs, 3, seed=0), honest)
    assert len(fitted) == 2
    assert same(StoredProbes(path)(*blobs, 3, seed=0), honest) and len(fitted) == 2, "it is replaced"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a system without pipes")
@pytest.mark.timeout(60)
def test_a_pipe_holds_no_probes(tmp_path, blobs, fitted):
    os.mkfifo(tmp_path / "probes.safetensors")
    for _ in range(2):
        StoredProbes(tmp_path / "probes.safetensors")(*blobs, 3, seed=0)
    assert len(fitted) == 1
