"""The per-user cache: filled by torchvision's own download, from a server on this machine, and never half filled."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from pyro_avae.data import load_dataset


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no way out of this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")
    return tmp_path / "cache" / "pyro_avae"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder that torchvision takes for MNIST's mirror, served on this machine."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
        yield folder
        server.shutdown()


def test_without_network_the_error_says_what_to_do_and_nothing_stays(cache, refused):
    with refused(r"^MNIST: expected to download it to .*cache/pyro_avae/MNIST/raw, got .*color-digits, which needs no"):
        load_dataset("color-mnist")
    assert list(cache.iterdir()) == []


def test_a_download_is_complete_and_serves_the_next_call_without_network(cache, mirror, data_root):
    for file in (data_root / "MNIST" / "raw").iterdir():
        (mirror / file.name).symlink_to(file)
    first = load_dataset("mnist", limit=500)
    assert [path.name for path in cache.iterdir()] == ["MNIST"]
    for file in mirror.iterdir():
        file.unlink()
    again = load_dataset("mnist", limit=500)
    expected = load_dataset("mnist", root=data_root, limit=500)
    for data in (first, again):
        assert torch.equal(data.train.images, expected.train.images)
        assert torch.equal(data.test.labels["digit"], expected.test.labels["digit"])


def test_a_damaged_download_is_refused_and_leaves_nothing(cache, mirror, data_root, refused):
    for file in (data_root / "MNIST" / "raw").iterdir():
        (mirror / file.name).write_bytes(file.read_bytes())
    damaged = mirror / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with refused("^MNIST: expected to download it to .*t10k-labels-idx1-ubyte.gz"):
        load_dataset("mnist")
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_refused(tmp_path, cache, refused):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with refused("^FashionMNIST: expected to download it to .*got NotADirectoryError"):
        load_dataset("fashion-mnist")
