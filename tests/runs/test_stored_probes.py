"""Stored probes: the same ones again, never another's, and no harm from a file that is damaged."""

import pytest
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
