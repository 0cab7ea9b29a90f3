"""The benchmarks measure what they say: the objectives written by hand are the library's."""

import json
import re
import sys
import zlib
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyro
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyro_avae.compilation import BaseNoise
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.triples import make_triple
from pyro_avae.training.step import SVIStep

# No part of the installed package; behind everything else, so that the checkout hides nothing that is installed.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import flops, scaling, soak, step_parts, step_time, together
from benchmarks.contenders import BY_HAND, OURS, STOCK, Contender, contenders, ours
from benchmarks.floor import Floor, bytes_moved, floor_of
from benchmarks.flops import by_hand_call, count, operations, traced_call
from benchmarks.handwritten import OBJECTIVES, _gradient
from benchmarks.lineup import line_up
from benchmarks.memory import peak_bytes
from benchmarks.timing import fastest, interleaved, ratios

CPU = torch.device("cpu")
SMALL = {"dataset": "color-mnist", "hidden": (7,), "latent_dim": 3}


def noise_by_shape():
    """The n-th draw of a kind and shape is the same, whatever else is drawn: one of the two draws more."""
    counts = defaultdict(int)

    def draw(spec):
        counts[spec.kind, spec.shape] += 1
        name = f"{spec.kind} {spec.shape} {counts[spec.kind, spec.shape]}"
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        make = torch.randn if spec.kind == "normal" else torch.rand
        return make(spec.shape, generator=generator)

    return BaseNoise(draw)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_by_hand_is_the_library_s(name):
    objective, changes = OBJECTIVES[name]
    settings = settings_for({**SMALL, **changes})
    model, guide, elbo = make_triple(settings)
    x = torch.rand(4, 3, 28, 28)
    parameters = [*guide.parameters(), *model.parameters()]
    found = []
    for loss in (lambda: elbo(model, guide)(x), lambda: objective(guide.encoder, model.decoder, x)):
        with pyro.validation_enabled(False), noise_by_shape():
            value = loss()
        found.append((value.detach(), torch.autograd.grad(value, parameters)))
    (one, gradients), (other, expected) = found
    torch.testing.assert_close(one, other, rtol=1e-5, atol=0)
    for gradient, same in zip(gradients, expected, strict=True):
        # Float32 sums of a few thousand pixels, in another order.
        torch.testing.assert_close(gradient, same, rtol=1e-3, atol=1e-4 * float(same.abs().max()))


def test_times_are_of_the_right_contender():
    spins = {"short": 200, "long": 20_000}
    calls = {name: lambda count=count: sum(range(count)) for name, count in spins.items()}
    times = interleaved(calls, repetitions=5, least_seconds=0.01, device=CPU)
    assert {name: len(each) for name, each in times.items()} == {"short": 5, "long": 5}
    low, middle, high = ratios(times, "long", "short")
    assert low <= middle <= high and middle > 5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_objective_in_jax_is_the_one_by_hand(name):
    """Averages over many draws: the two have noise of their own."""
    pytest.importorskip("jax")
    import jax
    import jax.numpy as jnp

    from benchmarks.jax_step import LOSSES, weights_of

    objective, changes = OBJECTIVES[name]
    settings = settings_for({**SMALL, **changes})
    model, guide, _ = make_triple(settings)
    x = torch.rand(4, 3, 28, 28)
    draws = 200
    by_hand = [float(objective(guide.encoder, model.decoder, x).detach()) for _ in range(draws)]
    weights, data = weights_of(guide.encoder, model.decoder), jnp.asarray(x.flatten(1).numpy())
    loss = jax.jit(LOSSES[name])
    in_jax = [float(loss(weights, data, key)) for key in jax.random.split(jax.random.key(0), draws)]
    error = (np.var(by_hand) / draws + np.var(in_jax) / draws) ** 0.5
    assert abs(np.mean(by_hand) - np.mean(in_jax)) < 5 * error
    assert np.std(by_hand) == pytest.approx(np.std(in_jax), rel=0.5)


def test_the_gradient_by_hand_is_the_same_compiled():
    """It is taken another way there, and in one piece: ``fullgraph``."""
    x = torch.linspace(-1, 1, 6)
    expected = _gradient(lambda at: (at.sin() * at).sum(), x)
    torch.testing.assert_close(expected, x.cos() * x + x.sin())
    compiled = torch.compile(lambda x: _gradient(lambda at: (at.sin() * at).sum(), x), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), expected)


# Python 3.13.0 alone: torch says there that what it checks before a compiled call takes longer.
@pytest.mark.filterwarnings("ignore:Guards may run slower on Python 3.13.0:RuntimeWarning")
@pytest.mark.parametrize("name", ["se-avae"])
def test_a_worst_case_by_hand_compiles_in_one_piece(name):
    objective, changes = OBJECTIVES[name]
    model, guide, _ = make_triple(settings_for({**SMALL, **changes}))
    loss = torch.compile(lambda x: objective(guide.encoder, model.decoder, x), backend="eager", fullgraph=True)
    loss(torch.rand(4, 3, 28, 28)).backward()
    assert all(parameter.grad is not None for parameter in (*guide.parameters(), *model.parameters()))


def test_flops_of_a_chain_of_linear_layers():
    """2 B I O forward, as much for the weights' gradients, and for the inputs' of every layer but the first."""
    batch, sizes = 5, [11, 7, 3, 2]
    layers = nn.Sequential(*(nn.Linear(i, o) for i, o in pairwise(sizes)))
    x = torch.rand(batch, sizes[0])
    products = [2 * batch * i * o for i, o in pairwise(sizes)]
    assert count(lambda: layers(x)) == sum(products)
    assert count(lambda: layers(x).sum().backward()) == 3 * sum(products) - products[0]


def test_flops_of_convolutions_are_those_that_torch_counts():
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 2, 3, groups=2))
    x = torch.rand(2, 3, 9, 9)
    with FlopCounterMode(display=False) as counter:
        layers(x).sum().backward()
    assert count(lambda: layers(x).sum().backward()) == counter.get_total_flops() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_flops_of_a_step(name):
    """By hand and traced, from the layers' sizes: what is decoded twice by hand is decoded once in the trace."""
    objective, changes = OBJECTIVES[name]
    settings = settings_for({**SMALL, **changes})
    batch, pixels, hidden, latent = 4, 3 * 28 * 28, *settings.hidden, settings.latent_dim
    first, encoder = 2 * batch * pixels * hidden, 2 * batch * hidden * (pixels + 2 * latent)
    decoder = 2 * batch * hidden * (latent + pixels)
    plain = 3 * (encoder + decoder) - first
    # The view's encoder, its gradients with respect to weights and, through z, pixels; the decoder's with respect to z.
    through, cut = 3 * encoder + decoder, 3 * encoder - first
    # Each step of the search is a forward pass and its gradient with respect to the pixels.
    searched = cut + settings.attack_steps * 2 * encoder
    more = {"vae": 0, "avae": through, "avae, cut": cut, "se": searched, "se-avae": through + searched}
    again = decoder if name in ("avae", "se-avae") else 0
    x = torch.rand(batch, 3, 28, 28)
    assert count(traced_call(settings, x)) == plain + more[name]
    assert count(by_hand_call(settings, objective, x)) == plain + more[name] + again


def test_operations_are_those_of_the_call_one_of_each_shape():
    x, square, tall = torch.rand(4, 5), torch.rand(5, 5), torch.rand(5, 2)
    found = operations(lambda: x @ square @ square @ tall)
    assert [number for _, number in found] == [2 * 4 * 5 * 5, 2 * 4 * 5 * 2]
    assert [tuple(run().shape) for run, _ in found] == [(4, 5), (4, 2)]


def test_the_floor_moves_the_state_twice_and_the_inputs_once():
    parameters, x = [torch.zeros(3, 4), torch.zeros(5)], torch.zeros(2, 7)
    assert bytes_moved(parameters, [x]) == 4 * (2 * 4 * (12 + 5) + 14)


def test_the_floor_of_a_step(monkeypatch):
    monkeypatch.setattr(flops, "SQUARES", {"cpu": (64,)})
    settings = settings_for({**SMALL, "method": "vae"})
    floor = floor_of(settings, torch.rand(4, 3, 28, 28), seconds=1e-4)
    assert floor.flops == count(traced_call(settings, torch.rand(4, 3, 28, 28)))
    assert 1e8 < floor.flop_rate < 1e16 and 1e7 < floor.byte_rate < 1e14
    assert Floor(flops=200, flop_rate=1e5, bytes=30, byte_rate=1e3).ms == pytest.approx(30)


def test_the_fastest_of_several_timings():
    calls = []
    assert 0 < fastest(lambda: calls.append(None), device=CPU, least_seconds=1e-4) < 1e-2
    assert len(calls) > 5


def test_peak_memory_is_the_most_alive_at_once():
    kept = []

    def call():
        first = torch.empty(1000, dtype=torch.uint8)
        second = torch.empty(4000, dtype=torch.uint8)  # 5000 alive, and what the call before kept
        del first
        third = torch.empty(500, dtype=torch.uint8)
        del second
        kept[:] = [third]

    call()
    assert peak_bytes(call, device=CPU) == 5500
    assert peak_bytes(call, device=CPU) == 5500  # whatever was counted before
    assert peak_bytes(lambda: None, device=CPU) == 0


def test_who_does_not_run_is_left_out_and_why_is_said():
    def fails():
        raise ValueError("no such thing\nand more")

    made = line_up({"a": Contender(lambda: lambda: None), "b": Contender(fails, optional=True)}, device=CPU)
    assert list(made.steps) == ["a"] and made.left_out == {"b": "ValueError: no such thing"}
    with pytest.raises(ValueError, match="no such thing"):
        line_up({"ours": Contender(fails)}, device=CPU)


def test_pythae_reduces_its_loss():
    pytest.importorskip("pythae.models")
    from benchmarks.pythae_step import pythae_step

    model, guide, _ = make_triple(settings_for({**SMALL, "method": "vae"}))
    step = pythae_step("vae", guide.encoder, model.decoder, torch.rand(4, 3, 28, 28), latent_dim=3, lr=1e-2)
    losses = [step() for _ in range(20)]
    assert losses[-1] < 0.9 * losses[0]
    with pytest.raises(ValueError, match="expected its vae, got avae"):
        pythae_step("avae", guide.encoder, model.decoder, torch.rand(4, 3, 28, 28), latent_dim=3, lr=1e-2)


@pytest.mark.parametrize("name", ["SVI, TraceMeanField_ELBO", "SVI, JitTrace_ELBO"])
def test_the_stock_step_trains(name):
    pyro.clear_param_store()
    objective, changes = OBJECTIVES["avae"]
    made = contenders("avae", settings_for({**SMALL, **changes}), objective, torch.rand(4, 3, 28, 28))
    with pyro.validation_enabled(False):
        step = made[name].build()
        step()
    before = [value.detach().clone() for value in pyro.get_param_store().values()]
    with pyro.validation_enabled(False):
        step()
    after = pyro.get_param_store().values()
    assert before and not any(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def stub_times(values, timing):
    each = {OURS: 1.0, STOCK: 3.0}
    return {name: [[time * value] * timing.repetitions for value in values] for name, time in each.items()}


def test_scaling_writes_what_it_was_asked_for(tmp_path, monkeypatch, capsys):
    sweeps = {name: scaling.Sweep(name, (2, 4), stub_times) for name in ("batch", "latent", "views")}
    monkeypatch.setattr(scaling, "SWEEPS", sweeps)
    written, drawn = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    options = ["--device", "cpu", "--sweeps", "batch", "views", "--repetitions", "3"]
    scaling.main([*options, "--json", str(written), "--plot", str(drawn)])
    found = json.loads(written.read_text())
    assert list(found["sweeps"]) == ["batch", "views"] and found["machine"]["device"] == "cpu"
    assert found["sweeps"]["views"] == {
        "label": "views",
        "values": [2, 4],
        "ms": {OURS: [[2.0] * 3, [4.0] * 3], STOCK: [[6.0] * 3, [12.0] * 3]},
        "relative": {OURS: [1.0, 2.0], STOCK: [1.0, 2.0]},
    }
    assert ElementTree.parse(drawn).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert "views 4: ours, compiled 4.00 ms" in capsys.readouterr().out


def test_contenders_at_all_values_take_turns():
    turns = []

    def build(value, device):
        def contender(name):
            return Contender(lambda: lambda: turns.append((name, value)))

        return {name: contender(name) for name in ("one", "other")}

    ms = scaling.interleaved_at(build)([2, 4], scaling.Timing(CPU, 3, 1e-9))
    assert {name: [len(times) for times in each] for name, each in ms.items()} == {"one": [3, 3], "other": [3, 3]}
    everybody = [(name, value) for value in (2, 4) for name in ("one", "other")]
    assert turns[-12:] == [*everybody, *everybody[::-1], *everybody]


def test_stock_steps_of_the_same_names_have_parameters_of_their_own():
    store = pyro.get_param_store()
    store.clear()
    made = [scaling.of_setting(name)(value, CPU)[STOCK] for name, value in (("latent_dim", 3), ("latent_dim", 5))]
    with pyro.validation_enabled(False):
        for step in [contender.build() for contender in made]:
            step()
            step()
    assert not store.keys()


def test_a_setting_is_swept(monkeypatch):
    """The contenders, eager here for the sake of time, on the batch that was asked for."""
    seen = []

    def step(settings, *rest):
        seen.append((settings.method, settings.batch_size, len(rest[-1])))
        return lambda: None

    monkeypatch.setattr(scaling, "ours", step)
    monkeypatch.setattr(scaling, "stock", step)
    found = scaling.sweep("batch", scaling.Timing(CPU, 2, 1e-4), values=[3, 5])
    assert seen == [("avae", size, size) for size in (3, 3, 5, 5)] and found["values"] == [3, 5]
    assert {name: [len(times) for times in ms] for name, ms in found["ms"].items()} == {OURS: [2, 2], STOCK: [2, 2]}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["vae", "avae", "avae, cut"])
def test_a_compiled_step_takes_no_more_memory_than_one_by_hand(method):
    """The paper's fully connected networks at batch 64; peak memory does not depend on the machine's load."""
    objective, changes = OBJECTIVES[method]
    settings = settings_for({"dataset": "color-mnist", "batch_size": 64, **changes})
    x = torch.rand(settings.batch_size, *settings.image_shape)
    everybody = contenders(method, settings, objective, x)
    with pyro.validation_enabled(False):
        lineup = line_up({name: everybody[name] for name in (OURS, BY_HAND)}, device=CPU)
    assert lineup.peaks[OURS] <= 1.1 * lineup.peaks[BY_HAND]


def test_the_soak_finds_the_slope_of_its_second_half():
    seconds = [360.0 * n for n in range(20)]
    memory = [500.0 - n if n < 10 else 480.0 + 0.3 * n for n in range(20)]
    rate, error = soak.slope(seconds, memory)
    assert rate == pytest.approx(3.0) and error == pytest.approx(0.0, abs=1e-9)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_what_a_process_holds_is_at_most_what_is_resident():
    before = soak.resident()
    assert 0 < soak.held() <= before + 1


def test_methods_are_timed_side_by_side(monkeypatch):
    """Each with its own settings, in turn, so that the machine's drift is in none of the ratios."""
    monkeypatch.setitem(step_time.CASES, "tiny", {"batch_size": 2, "hidden": (4,), "latent_dim": 2})
    made = []

    def eager(settings, x):
        made.append((settings.method, settings.gradient, x.shape))
        return ours(settings, x, compiled=False)

    monkeypatch.setattr(step_time, "ours", eager)
    ms = step_time.side_by_side("tiny", ["vae", "avae, cut"], device=torch.device("cpu"), repetitions=3, seconds=1e-3)
    assert made == [("vae", None, (2, 3, 28, 28)), ("avae", "cut", (2, 3, 28, 28))]
    assert list(ms) == ["vae", "avae, cut"] and all(len(each) == 3 and min(each) > 0 for each in ms.values())


def test_the_parts_of_a_step_are_within_the_whole():
    settings = settings_for({**SMALL, "batch_size": 256})
    x = torch.rand(settings.batch_size, *settings.image_shape)
    with pyro.validation_enabled(False):
        step = ours(settings, x, compiled=False)
        step()
        parts = step_parts.parts_of(step, steps=3)
    whole = parts.pop("all")
    assert set(parts) == {"matrix products", "the optimiser", "the drawing of noise"}
    assert min(parts.values()) > 0 and sum(parts.values()) < whole


def test_a_step_without_one_of_its_measures(monkeypatch):
    """Every measure is there to be left out, while the step is compiled and while it runs, and is back afterwards."""
    before = {measure: getattr(where, name) for measure, (where, name, _) in step_parts.MEASURES.items()}
    seen = []

    def made(settings, x):
        return lambda: seen.append({m: getattr(where, name) for m, (where, name, _) in step_parts.MEASURES.items()})

    monkeypatch.setattr(step_parts, "ours", made)
    for measure, (_, _, stand_in) in step_parts.MEASURES.items():
        step_parts.without(measure, settings_for(SMALL), torch.rand(2, 3, 28, 28))()
        assert seen.pop() == {**before, measure: stand_in}
    assert before == {measure: getattr(where, name) for measure, (where, name, _) in step_parts.MEASURES.items()}


@pytest.mark.parametrize("main", [scaling.main, step_parts.main, step_time.main])
@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--device", "abacus"], "expected cpu, cuda or cuda:N, got 'abacus'"),
        (["--device", "cuda:99"], "expected a device of this machine, got 'cuda:99'"),
        (["--repetitions", "0"], "expected a whole number above 0, got '0'"),
        (["--seconds", "-1"], "expected a number of seconds above 0, got '-1'"),
        (["--json", "no/such/folder/file.json"], "expected a file in a folder that exists"),
    ],
)
def test_a_bad_option_is_refused(main, option, said, capsys):
    with pytest.raises(SystemExit) as refused:
        main(option)
    assert refused.value.code == 2 and re.search(re.escape(said), capsys.readouterr().err)


def test_what_is_said_of_a_case():
    found = step_time.Measured(
        ms={OURS: [2.0, 4.0], "torch by hand, compiled": [4.0, 4.0], STOCK: [8.0, 8.0]},
        peaks={OURS: 2**20, "torch by hand, compiled": 2**21},
        left_out={"pythae": "InputError: no"},
        floor=Floor(flops=10**9, flop_rate=1e12, bytes=10**7, byte_rate=1e10),
        flops_by_hand=2 * 10**9,
    )
    said = "\n".join(step_time.lines(found))
    assert "left out: pythae: InputError: no" in said
    assert "ours, compiled / torch by hand, compiled: 0.750 (0.500 .. 1.000)" in said
    assert "peak memory, ours, compiled / torch by hand, compiled: 0.500" in said
    assert "1.000 GFLOP (2.000 by hand) at 1000.0 GFLOP/s: 1.000 ms; 10.0 MB at 10.0 GB/s: 1.000 ms" in said
    assert "ours, compiled / floor: 3.00" in said


def test_seeds_do_their_steps_together_and_apart(monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)
    made = together.several_seeds(2, CPU)
    assert list(made) == [together.ALL_AT_ONCE, together.ONE_BY_ONE]
    calls = []
    call = SVIStep.__call__

    def counted(step, *batches, **options):
        calls.append(len(batches))
        call(step, *batches, **options)

    monkeypatch.setattr(SVIStep, "__call__", counted)
    with pyro.validation_enabled(False):
        for contender in made.values():
            contender.build()()
    assert calls == [2, 1, 1]


@pytest.mark.slow
def test_ranks_share_a_batch():
    found = together.on_ranks(2, device=torch.device("cpu"), repetitions=2, seconds=0.0)
    assert [len(times) for times in found.values()] == [2]
