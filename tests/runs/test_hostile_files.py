"""Whatever lies in a run's folder: a reader takes it whole, or gives one line and changes nothing."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyro_avae.errors import InputError
from pyro_avae.experiments.methods import build
from pyro_avae.experiments.warm_start import copy_trained
from pyro_avae.report.runs import read_run
from pyro_avae.runs.checkpoints import Checkpoint, read_checkpoint, saved_checkpoints, write_checkpoint
from pyro_avae.runs.files import write_json
from pyro_avae.runs.kept import kept_checkpoints, load_kept, stages
from pyro_avae.runs.loading import load_run
from pyro_avae.runs.settings import Settings
from pyro_avae.training import fit

SETTINGS = Settings(
    method="vae",
    steps=4,
    latent_dim=2,
    hidden=(4,),
    image_shape=(1, 2, 2),
    builder="pyro_avae.experiments.methods:build",
)
IMAGES = torch.rand(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))
OPTIONS = {"steps": 4, "batch_size": 3, "lr": 0.01, "checkpoint_every": 2, "keep_every": 2, "settings": SETTINGS}
NEWEST = "step-000000000004"

pytestmark = pytest.mark.timeout(300)
relaxed = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

scalars = st.none() | st.booleans() | st.integers(-3, 10) | st.floats() | st.text(max_size=3)
scalars |= st.sampled_from([10**400, -(10**400), 1e308, "9" * 5000, "a\nb"])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner), max_leaves=5
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of four steps; not to be changed."""
    run = tmp_path_factory.mktemp("trained") / "run"
    with torch.random.fork_rng(devices=[]):
        model, guide, elbo = build(SETTINGS)
        fit(model, guide, IMAGES, elbo=elbo, out=run, **OPTIONS)
    return run


@pytest.fixture
def copied(trained, tmp_path_factory):
    """Makes a copy of the run that may be damaged."""
    return lambda: Path(shutil.copytree(trained, tmp_path_factory.mktemp("copy") / "run"))


def resume(run, pair):
    model, guide, elbo = pair
    fit(model, guide, IMAGES, elbo=elbo, out=run, resume=True, **OPTIONS)


def load_all_kept(run, pair):
    for stage in stages(kept_checkpoints(run)):
        stage.load(*pair[:2])


READERS = {
    "load": lambda run, pair: load_run(run),
    "report": lambda run, pair: read_run(run),
    "start from": copy_trained,
    "kept": load_all_kept,
    "resume": resume,
}


def read_everything(run):
    """Call every reader; each works, or gives one line and has changed no parameter. Returns the lines."""
    lines = {}
    for name, read in READERS.items():
        pair = build(SETTINGS)
        state = [tensor.clone() for part in pair[:2] for tensor in part.state_dict().values()]
        noise = torch.get_rng_state()
        try:
            read(run, pair)
        except IsADirectoryError:
            assert name == "resume", "a folder may be in the way of what is written, and of nothing else"
        except InputError as error:
            lines[name] = str(error)
            assert len(lines[name].splitlines()) == 1 and lines[name].isprintable(), (name, lines[name])
            after = [tensor for part in pair[:2] for tensor in part.state_dict().values()]
            assert all(torch.equal(one, other) for one, other in zip(state, after, strict=True)), name
            assert torch.equal(noise, torch.get_rng_state()), name
    return lines


def forge(folder, *, tensors=None, facts=None):
    """Write the newest checkpoint of the folder anew, with checksums that fit."""
    found = read_checkpoint(folder / f"{NEWEST}.json")
    for path in saved_checkpoints(folder):
        path.unlink()
    write_checkpoint(
        folder, Checkpoint(found.step, found.tensors if tensors is None else tensors, {**found.facts, **(facts or {})})
    )


def seal(folder, content):
    """Give the newest checkpoint of the folder this content for its tensors, with checksums that fit."""
    path = folder / f"{NEWEST}.json"
    document = json.loads(path.read_text()) | {"tensors_sha256": hashlib.sha256(content).hexdigest()}
    del document["sha256"]
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    write_json(path, {**document, "sha256": digest})
    path.with_suffix(".safetensors").write_bytes(content)
    for other in saved_checkpoints(folder)[:-1]:
        other.unlink()


def test_an_honest_run_is_read(copied):
    assert read_everything(copied()) == {}


FACTS = ("step", "seconds", "device", "fit", "compiled", "lr", "versions")


@relaxed
@given(st.dictionaries(st.sampled_from(FACTS), documents, min_size=1), st.dictionaries(st.text(max_size=5), documents))
def test_any_facts(copied, facts, fit_facts):
    facts = json.loads(
        json.dumps(facts).replace("NaN", "null").replace("-Infinity", "null").replace("Infinity", "null")
    )
    run = copied()
    for folder in (run / "checkpoints", run / "kept"):
        forge(folder, facts=facts)
    read_everything(run)


@relaxed
@given(st.data())
def test_any_tensor_changed(copied, data):
    run = copied()
    tensors = dict(read_checkpoint(run / "checkpoints" / f"{NEWEST}.json").tensors)
    name = data.draw(st.sampled_from(sorted(tensors)))
    t = tensors[name]
    change = data.draw(
        st.sampled_from(
            [
                "shape",
                "flat",
                "dtype",
                "bytes",
                "complex",
                "float8",
                "nan",
                "inf",
                "gone",
                "name",
                "more",
                "swap",
                "noise",
            ]
        )
    )
    if change == "swap":
        other = data.draw(st.sampled_from(sorted(tensors)))
        tensors[name], tensors[other] = tensors[other], t
    elif change in ("gone", "name"):
        del tensors[name]
        if change == "name":
            tensors[data.draw(st.sampled_from([f"{name}x", f"x{name}", "optimizer.x.step", "model."]))] = t
    elif change == "more":
        tensors[f"{name.partition('.')[0]}.more"] = t
    elif change == "noise":
        tensors["random.cpu"] = torch.full_like(tensors["random.cpu"], data.draw(st.integers(0, 255)))
    else:
        tensors[name] = {
            "shape": lambda: torch.zeros(*t.shape, 2, dtype=t.dtype),
            "flat": lambda: torch.zeros(0, dtype=t.dtype),
            "dtype": lambda: t.to(torch.float16),
            "bytes": lambda: t.to(torch.uint8),
            "complex": lambda: t.to(torch.complex64),
            "float8": lambda: t.to(torch.float8_e4m3fn),
            "nan": lambda: torch.full_like(t.float(), float("nan")),
            "inf": lambda: torch.full_like(t.float(), float("-inf")),
        }[change]()
    forge(run / "checkpoints", tensors=tensors)
    forge(run / "kept", tensors={k: v for k, v in tensors.items() if not k.startswith(("optimizer", "random"))})
    lines = read_everything(run)
    if change in ("nan", "inf") and name.startswith(("model", "guide")):
        assert lines.keys() >= {"load", "kept", "resume"}, "a parameter that is not finite is no parameter"
    if change not in ("swap", "dtype", "noise"):
        assert "resume" in lines, "nothing of what goes on may be missing or another"


HEADERS = [
    {},
    {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [0, 2**63], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [0, 2**64], "data_offsets": [0, 0]}},
    {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**63]}},
    {"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}},
    {"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}},
    {"a": {"dtype": "BOOL", "shape": [4], "data_offsets": [0, 4]}},
    {"a": {"dtype": "C64", "shape": [0], "data_offsets": [0, 0]}},
    {"a": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}},
    {"a\nb": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    {"model.\n": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    {"__metadata__": {"a": 3}},
    [[[]]],
]


@pytest.mark.parametrize("header", [*HEADERS, None, "[" * 5000, '{"a":' * 5000], ids=lambda header: str(header)[:40])
@pytest.mark.parametrize("length", [None, 0, 2**40, 2**64 - 1])
def test_any_header_of_safetensors(copied, header, length):
    run = copied()
    text = b"\xff" * 9 if header is None else (header if isinstance(header, str) else json.dumps(header)).encode()
    content = (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(4)
    for folder in (run / "checkpoints", run / "kept"):
        seal(folder, content)
    (run / "probes.safetensors").write_bytes(content)
    assert "load" in read_everything(run)


FILES = ["config.json", "log.jsonl", f"checkpoints/{NEWEST}.json", f"checkpoints/{NEWEST}.safetensors"]
FILES += [f"kept/{NEWEST}.json", f"kept/{NEWEST}.safetensors"]
BYTES = [
    b"",
    b"\x00" * 9,
    b"\xff\xfe{",
    b"[" * 100_000,
    b'{"a":' * 990 + b"1" + b"}" * 990,
    b'{"step": 1' + b"0" * 400 + b"}",
]
BYTES += [b"1" * 5000, b'{"format": -1000000000000}', b'{"step": 1, "step": "a", "loss": [1]}', b'"\\ud800"', b"NaN"]
BYTES += [b'{"\\n": 1}', b'{"format": 1, "method": {"a": 3}}', b"[" * 970 + b"]" * 970, b'{"step": true, "x": 1e999}']


@relaxed
@given(
    st.sampled_from(FILES),
    st.sampled_from(BYTES) | st.binary(max_size=30) | documents.map(lambda d: json.dumps(d).encode()),
)
def test_any_bytes_in_any_file(copied, name, content):
    run = copied()
    (run / name).write_bytes(content)
    read_everything(run)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # a curve's point is a float32
@relaxed
@given(st.sampled_from(FILES[:2]), documents, st.data())
def test_any_value_anywhere_in_a_document(copied, name, value, data):
    run = copied()
    lines = (run / name).read_text().splitlines() if name == "log.jsonl" else [(run / name).read_text()]
    place = data.draw(st.integers(0, len(lines) - 1))
    document = json.loads(lines[place])
    document[data.draw(st.sampled_from([*document, "other", "a\nb"]))] = value
    lines[place] = json.dumps(document)
    (run / name).write_text("\n".join(lines) + "\n")
    read_everything(run)


SPECIAL = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nothing"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "endless device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.skipif(os.name != "posix", reason="files of POSIX")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_file(copied, name, kind):
    run = copied()
    (run / name).unlink()
    SPECIAL[kind](run / name)
    lines = read_everything(run)
    if name.startswith("config"):
        assert lines.keys() >= {"load", "report"}


@pytest.mark.skipif(os.name != "posix", reason="links of POSIX")
@pytest.mark.parametrize(
    "name", [".lock", ".config.json.tmp", ".log.jsonl.tmp", "log.jsonl", f"checkpoints/.{NEWEST}.json.tmp"]
)
def test_a_link_in_a_run_does_not_lead_training_out_of_it(copied, tmp_path, name):
    run, mine = copied(), tmp_path / "mine"
    mine.write_text("of great worth\n")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(mine)
    for path in (run / "checkpoints").glob(f"{NEWEST}*"):
        path.unlink()
    try:
        resume(run, build(SETTINGS))
    except InputError as error:
        assert name == ".lock" and "expected a plain file" in str(error), error
    assert mine.read_text() == "of great worth\n"


@pytest.mark.parametrize(
    "name", ["step-x.json", "step-.safetensors", "step-000000000009.txt", "step-٣٣٣٣٣٣٣٣٣٣٣٣.json"]
)
def test_names_that_no_training_writes(copied, name):
    run = copied()
    for folder in (run / "checkpoints", run / "kept"):
        (folder / name).write_text("{}")
    assert read_everything(run) == {}


def test_a_checkpoint_under_the_name_of_another_step(copied):
    run = copied()
    for suffix in ("json", "safetensors"):
        (run / "checkpoints" / f"{NEWEST}.{suffix}").rename(run / "checkpoints" / f"step-000000000900.{suffix}")
    with pytest.raises(InputError, match=r"step-000000000900\.json: damaged checkpoint: expected step 900.*got 4"):
        read_checkpoint(run / "checkpoints" / "step-000000000900.json")
    assert load_run(run).step == 2


def test_a_kept_checkpoint_of_another_pair_changes_nothing(copied):
    found = kept_checkpoints(copied())[-1]
    model, guide, _ = build(SETTINGS)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    name = next(name for name in found.tensors if name.startswith("guide"))
    tensors = {**found.tensors, name: torch.full_like(found.tensors[name], float("nan"))}
    with pytest.raises(InputError, match="expected finite numbers"):
        load_kept(Checkpoint(found.step, tensors, found.facts), model, guide)
    after = [*model.parameters(), *guide.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_safetensors_of_a_checkpoint_hold_what_it_says(copied):
    """The forging itself: what it writes is intact by every checksum."""
    run = copied()
    content = safetensors.torch.save({"model.x": torch.zeros(2)})
    seal(run / "checkpoints", content)
    assert read_checkpoint(run / "checkpoints" / f"{NEWEST}.json").tensors.keys() == {"model.x"}
