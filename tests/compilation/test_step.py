"""Compiled steps: what they compute, when they trace, and what they do where they cannot."""

import copy
import json
import subprocess
import sys

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation import compile_step, step
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.triples import make_triple
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE, bernoulli


@pytest.fixture
def traced_only(monkeypatch):
    """Run the traced graph itself: all but inductor, in a hundredth of the time."""
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)


def module_of(**options):
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho=0.9, **(options or {"obs_variance": 0.5}))
    return AVAE_ELBO()(model, AVAEGuide(LinearEncoder(4, 2), model)).train()


def batches(count=6, size=5):
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(size, 4, generator=generator).round() for _ in range(count)]


def trained(data, *, module=None, lr=0.05, **options):
    """Losses, terms and the final state after a step on each batch."""
    module = module or module_of()
    made = compile_step(module, torch.optim.Adam(module.parameters(), lr=lr), data[0], **options)
    losses = [made(x) for x in data]
    return torch.stack(losses), module.state_dict(), made


def assert_same(one, other, *, rtol=1e-5, atol=1e-5):
    # Rounding of float32, carried through a few steps of Adam.
    torch.testing.assert_close(one[0], other[0], rtol=rtol, atol=atol)
    torch.testing.assert_close(one[1], other[1], rtol=rtol, atol=atol)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize(
    "options", [{}, {"mean": True}, {"max_grad_norm": 0.1}, {"seed": 5}, {"mean": True, "max_grad_norm": 1e-3}]
)
def test_traced_and_eager_training_agree(options):
    with pyro.validation_enabled(False):
        assert_same(trained(batches(), **options), trained(batches(), compile=False, **options))


def test_compiled_and_eager_training_agree():
    with pyro.validation_enabled(False):
        one, other = trained(batches()), trained(batches(), compile=False)
    assert_same(one, other)
    assert one[2].compiled and one[2].seconds > 0 and one[2].number == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vae", {}),
        ("avae", {"rho": "natural"}),
        ("se", {"coupling": "pairwise"}),
        ("se-avae", {"coupling": "optimal", "normalization": "batch"}),
        ("avae", {"likelihood": "bernoulli"}),
        ("avae", {"architecture": "conv", "channels": 4}),
    ],
)
def test_methods_train_compiled_as_it_does_eagerly(method, options):
    shape = (3, 28, 28) if "architecture" in options else (3, 8, 8)
    widths = {} if "architecture" in options else {"hidden": (6,)}
    given = {"dataset": "color-digits", **widths, "latent_dim": 2, "image_shape": shape, "method": method, **options}
    generator = torch.Generator().manual_seed(3)
    data = [torch.rand(5, *shape, generator=generator).round() for _ in range(5)]
    found = []
    for compiled in (True, False):
        model, guide, elbo = make_triple(settings_for(given))
        with pyro.validation_enabled(False):
            made = trained(data, module=elbo(model, guide).train(), lr=1e-3, mean=True, compile=compiled)
        found.append(made)
    assert_same(*found, rtol=1e-4, atol=1e-4)


def test_bernoulli_gradients_are_those_of_the_eager_elbo(traced_only):
    """Some mistakes vanish for Gaussians."""
    with pyro.validation_enabled(False):
        one, other = (
            trained(batches(), module=module_of(likelihood=bernoulli), compile=compiled) for compiled in (True, False)
        )
    assert_same(one, other)
    assert not torch.equal(
        one[1]["guide.encoder.linear.weight"], module_of(likelihood=bernoulli).guide.encoder.linear.weight
    )


@pytest.mark.usefixtures("traced_only")
def test_noise_is_new_each_step_and_that_of_its_number():
    x = torch.rand(5, 4)
    module = module_of()
    made = compile_step(module, torch.optim.SGD(module.parameters(), lr=0.0), x)
    losses = [float(made(x)) for _ in range(4)]
    assert len(set(losses)) == 4
    made.number = 2
    assert float(made(x)) == losses[2]
    eager = compile_step(module, torch.optim.SGD(module.parameters(), lr=0.0), x, compile=False)
    eager.number = 3
    assert float(eager(x)) == pytest.approx(losses[3], rel=1e-6)


@pytest.mark.usefixtures("traced_only")
def test_making_a_step_changes_nothing():
    module = module_of()
    state, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    compile_step(module, torch.optim.Adam(module.parameters()), torch.zeros(5, 4))
    torch.testing.assert_close(module.state_dict(), state, rtol=0, atol=0)
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.usefixtures("traced_only")
def test_other_shapes_are_right_and_traced_when_they_come_often():
    data = batches(3) + batches(1, size=3) + batches(2) + batches(4, size=3)
    one, other = trained(data), trained(data, compile=False)
    assert_same(one, other)
    assert len(one[2]._traced) == 2
    assert len(trained(batches(3) + batches(2, size=3))[2]._traced) == 1


@pytest.mark.usefixtures("traced_only")
def test_a_change_of_mode_is_no_stale_trace():
    layer = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))

    def module():
        torch.manual_seed(0)
        model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho=0.9, obs_variance=0.5)
        return AVAE_ELBO()(model, AVAEGuide(nn.Sequential(copy.deepcopy(layer), LinearEncoder(4, 2)), model)).train()

    found = []
    for compiled in (True, False):
        made = module()
        step = compile_step(made, torch.optim.Adam(made.parameters(), lr=0.01), batches()[0], compile=compiled)
        losses = [step(x) for x in batches(3)]
        made.eval()
        found.append(torch.stack([*losses, *(step(x) for x in batches(5))]))
    torch.testing.assert_close(*found)


def test_without_a_compiler_it_is_eager_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(step, "compiler_missing", lambda device: "no C++ compiler found")
    found = trained(batches())
    assert_same(found, trained(batches(), compile=False), rtol=0, atol=0)
    assert not found[2].compiled
    assert [record.getMessage() for record in caplog.records] == ["no C++ compiler found; steps are not compiled"]


def test_a_machine_without_a_compiler_is_found_out():
    """In a process of its own: torch looks for compilers once."""
    code = (
        "import json, torch; from pyro_avae.compilation.compilers import compiler_missing;"
        "print(json.dumps(compiler_missing(torch.device('cpu'))))"
    )
    environment = {"PATH": "/nowhere", "CXX": "/nowhere/g++", "PYTHONPATH": ":".join(sys.path), "HOME": "/nowhere"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).startswith("no C++ compiler found")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: compile_step(nn.Linear(2, 2), None),
            r"elbo_module: expected what elbo\(model, guide\) returns, got Lin",
        ),
        (lambda: compile_step(module_of().requires_grad_(False), None), "expected parameters to train, found none"),
    ],
)
def test_what_is_no_module_to_train(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.usefixtures("traced_only")
def test_the_halves_of_a_step_are_the_step():
    """What training on several ranks puts an average between."""
    whole, halves = module_of(), module_of()
    one = compile_step(whole, torch.optim.Adam(whole.parameters()), batches()[0])
    other = compile_step(halves, torch.optim.Adam(halves.parameters()), batches()[0])
    for x in batches():
        one(x)
        other.gradients(x)
        other.update()
    torch.testing.assert_close(whole.state_dict(), halves.state_dict(), rtol=0, atol=0)


@pytest.mark.cuda
def test_cuda_steps_agree_with_the_eager_ones():
    data = [x.cuda() for x in batches()]
    found = [trained(data, module=module_of().cuda(), compile=compiled) for compiled in (True, False)]
    assert_same(*found, rtol=1e-4, atol=1e-4)
