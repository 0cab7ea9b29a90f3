"""Two real processes that train one run: the gradient of one, and what happens when one of them dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from pyro_avae.compilation.base_noise import NoiseSource, NoiseSpec
from pyro_avae.compilation.rank_noise import RankNoise
from pyro_avae.errors import InputError
from pyro_avae.runs.checkpoints import newest_checkpoint
from pyro_avae.runs.kept import kept_checkpoints

CPU = torch.device("cpu")
F32 = torch.float32

COMMON = """
import sys
import torch
from torch import distributed, nn
from pyro_avae import AVAE_ELBO
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.data import load_dataset
from pyro_avae.guides import AVAEGuide, MLPEncoder
from pyro_avae.models import ExtendedVAE, Gaussian, MLPDecoder, bernoulli
from pyro_avae.training import fit, fit_seeds
from pyro_avae.training.ranks import TorchRanks

TracedProgram.compile = lambda self: None
DATA = load_dataset("color-digits", limit=50)
CASES = {
    "gaussian": (dict(likelihood=lambda: Gaussian(obs_variance=0.2, learned=True)), dict()),
    "particles": (dict(obs_variance=0.5), dict(num_particles=3, vectorize_particles=True)),
    "natural": (dict(obs_variance=0.5, rho="natural"), dict()),
}

def pair(seed, **options):
    torch.manual_seed(seed)
    options = {"rho": 0.9, **{name: value() if callable(value) else value for name, value in options.items()}}
    model = ExtendedVAE(MLPDecoder(2, DATA.shape, hidden=[4]), latent_dim=2, **options)
    return model, AVAEGuide(MLPEncoder(DATA.shape, 2, hidden=[4]), model)

def state(pairs):
    return [{**{"m." + k: v for k, v in m.state_dict().items()}, **{"g." + k: v for k, v in g.state_dict().items()}}
            for m, g in pairs]

def trained(name, *, compile, ranks=None, seed=0, **more):
    model_options, elbo_options = CASES[name]
    made = pair(seed, **model_options)
    options = dict(steps=12, batch_size=8, lr=0.01, seed=3, compile=compile, ranks=ranks, log_every=5, **more)
    result = fit(*made, DATA, elbo=AVAE_ELBO(**elbo_options), **options)
    return state([made]), result.history

def trained_seeds(*, ranks=None):
    pairs = [pair(seed, obs_variance=0.5) for seed in (0, 1)]
    fit_seeds(pairs, DATA, seeds=[0, 1], steps=12, batch_size=8, lr=0.01, compile=True, ranks=ranks)
    return state(pairs)
"""


def two_processes(tmp_path, body, *, wait=True):
    """Run ``body`` in two processes of one gloo group; their standard outputs and exit statuses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = tmp_path / "script.py"
    start = "distributed.init_process_group('gloo')\nranks = TorchRanks(torch.device('cpu'))\n"
    script.write_text(COMMON + start + textwrap.dedent(body) + "\ndistributed.destroy_process_group()\n")
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, script],
            env={**os.environ, **common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    if not wait:
        return processes
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    return outputs


def one_process():
    names = {}
    exec(COMMON, names)
    return names


def test_two_ranks_compute_what_one_process_computes(tmp_path, monkeypatch):
    from pyro_avae.compilation.trace import TracedProgram

    monkeypatch.setattr(TracedProgram, "compile", TracedProgram.compile)  # put back what COMMON changes here
    body = f"""
    found = {{
        f"{{name}} {{compile}}": trained(name, compile=compile, ranks=ranks, seed=ranks.rank)
        for name in CASES for compile in (True, False)
    }}
    torch.save((found, trained_seeds(ranks=ranks)), {str(tmp_path)!r} + f"/{{ranks.rank}}.pt")
    """
    two_processes(tmp_path, body)
    (first, first_seeds), (second, second_seeds) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    alone = one_process()
    for key, (state, history) in first.items():
        name, compiled = key.split()
        assert all(torch.equal(tensor, second[key][0][0][n]) for n, tensor in state[0].items()), key
        expected, rows = alone["trained"](name, compile=compiled == "True")
        natural = {"coupling.moments"} if name == "natural" else set()  # each rank's batch has its own part in it
        for n, tensor in state[0].items():
            if not any(n.endswith(part) for part in natural):
                tolerance = 1e-2 if natural else 1e-4  # of float32 through 12 steps of Adam
                close = {"rtol": tolerance, "atol": tolerance / 10}
                torch.testing.assert_close(tensor, expected[0][n], **close, msg=lambda m, w=f"{key} {n}": f"{w}: {m}")
        for row, other in zip(history, rows, strict=True):
            assert row == pytest.approx(other, rel=1e-2 if natural else 1e-4, abs=1e-3)
    torch.testing.assert_close(first_seeds, alone["trained_seeds"](), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(one[n], other[n]) for one, other in zip(first_seeds, second_seeds, strict=True) for n in one)


@pytest.mark.slow
def test_the_first_rank_writes_and_a_resumed_run_goes_on_on_all(tmp_path):
    body = f"""
    out = {str(tmp_path)!r} + "/run"
    mine = out if ranks.rank == 0 else out + "-of-another"
    first = trained("gaussian", compile=False, ranks=ranks, out=mine)
    made = pair(7 + ranks.rank, **CASES["gaussian"][0])
    options = dict(batch_size=8, lr=0.01, seed=3, ranks=ranks, log_every=5)
    result = fit(*made, DATA, steps=20, out=mine, resume=True, **options)
    print(result.steps, [row["step"] for row in result.history])
    """
    outputs = two_processes(tmp_path, body)
    assert outputs[0][0].split("\n")[0] == "20 [1, 5, 10, 12, 15, 20]"
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").step == 20
    # Ten of the 12 steps of the first training, and of the 20 of the second those after it.
    assert [kept.step for kept in kept_checkpoints(tmp_path / "run")] == [
        2,
        3,
        4,
        5,
        6,
        8,
        9,
        10,
        11,
        12,
        14,
        16,
        18,
        20,
    ]
    assert not (tmp_path / "run-of-another").exists()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 5, 10, 12, 15, 20]


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_is_refused(tmp_path):
    body = """
    from pyro_avae.errors import InputError
    try:
        fit(*pair(0, obs_variance=0.5), DATA, steps=2, batch_size=7, ranks=ranks)
    except InputError as error:
        print(error)
    """
    for out, _ in two_processes(tmp_path, body):
        assert out.startswith("batch_size: expected a multiple of the 2 devices, got 7")


@pytest.mark.parametrize("dead", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_dead_rank_ends_the_training_with_an_error_that_says_so(tmp_path, dead):
    body = f"""
    from pyro_avae.training import RankError
    out = {str(tmp_path)!r} + "/run" if ranks.rank == 0 else None
    try:
        fit(*pair(0, obs_variance=0.5), DATA, steps=10**6, batch_size=8, ranks=ranks, out=out, checkpoint_every=20)
    except RankError as error:
        print(error, flush=True)
        import os; os._exit(3)
    """
    processes = two_processes(tmp_path, body, wait=False)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("*.json")) and time.monotonic() < deadline:
        assert all(process.poll() is None for process in processes), [p.communicate() for p in processes]
        time.sleep(0.1)
    processes[dead].send_signal(signal.SIGKILL)
    out, _ = processes[1 - dead].communicate(timeout=60)
    assert processes[1 - dead].returncode == 3
    assert f"rank {1 - dead} of 2: another process of this training has ended" in out
    processes[dead].communicate()
    assert newest_checkpoint(tmp_path / "run" / "checkpoints").step >= 20


def spec(*shape):
    return NoiseSpec("normal", shape, F32, CPU)


@pytest.mark.parametrize(
    ("part", "whole", "place"),
    [
        ((3, 4), (6, 4), 0),
        ((5, 3, 4), (5, 6, 4), 1),
        ((15, 4), (30, 4), 0),  # five particles in front of three rows
        ((2, 9), (2, 18), 1),
    ],
)
def test_parts_of_noise_are_those_of_the_whole(part, whole, place):
    source = NoiseSource(0)
    ranks = [RankNoise(NoiseSource(0), r, 2, 3, part=[spec(*part)], whole=[spec(*whole)]) for r in range(2)]
    for each in (source, *ranks):
        each.start(4)
    expected = source.draw(spec(*whole)).unflatten(place, (-1, 6))
    found = [rank.draw(spec(*part)).unflatten(place, (-1, 3)) for rank in ranks]
    assert torch.equal(torch.cat(found, dim=place + 1), expected)


def test_noise_for_all_rows_is_the_same_on_every_rank():
    ranks = [RankNoise(NoiseSource(0), r, 2, 3, part=[spec(7)], whole=[spec(7)]) for r in range(2)]
    for rank in ranks:
        rank.start(1)
    one, other = (rank.draw(spec(7)) for rank in ranks)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("part", "whole"), [([spec(3)], [spec(6), spec(6)]), ([spec(4)], [spec(8)]), ([spec(3, 3)], [spec(6, 6)])]
)
def test_noise_that_cannot_be_shared_out_is_refused(part, whole):
    with pytest.raises(InputError, match=r"^ranks: the program draws .*; train it on one device"):
        RankNoise(NoiseSource(0), 0, 2, 3, part=part, whole=whole)
