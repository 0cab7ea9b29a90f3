"""Training through Pyro's SVI, and the parameter store left alone otherwise."""

import copy
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch
from pyro.infer import SVI
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE, Gaussian
from pyro_avae.parameters import register_parameters

ROOT = Path(__file__).resolve().parent.parent
F64 = torch.float64
#: Ten steps of Adam, each some tens of roundings of parameters of the order of 1.
ROUNDING = 1e4 * torch.finfo(F64).eps


def build(seed=0, **options):
    torch.manual_seed(seed)
    options = {"rho": "learned", "likelihood": Gaussian(learned=True), **options}
    model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2, **options).double()
    return model, AVAEGuide(LinearEncoder(5, 2).double(), model)


def data():
    return torch.rand(8, 5, dtype=F64, generator=torch.Generator().manual_seed(5))


def adam(lr=1e-2):
    return pyro.optim.Adam({"lr": lr})


def snapshot(*modules):
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def moved(before, *modules):
    return [bool((p.detach() != old).any()) for p, old in zip(_parameters(*modules), before, strict=True)]


def _parameters(*modules):
    return [parameter for module in modules for parameter in module.parameters()]


def test_svi_trains_model_and_guide():
    model, guide = build()
    before, x = snapshot(model, guide), data()
    svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
    losses = torch.tensor([svi.step(x) for _ in range(150)])
    assert all(moved(before, model, guide))
    first, last = losses[:30], losses[-30:]
    error = (first.var() / 30 + last.var() / 30).sqrt()
    assert first.mean() - last.mean() > 5 * error


@pytest.mark.parametrize("particles", [{}, {"num_particles": 2, "vectorize_particles": True}])
@pytest.mark.parametrize("plain", [False, True])
def test_svi_equals_a_torch_loop_step_for_step(plain, particles):
    x, elbo = data(), AVAE_ELBO(**particles)
    pairs = [build(), build()]
    if plain:
        pairs = [(VAE(model.decoder, latent_dim=2), AmortizedGuide(guide.encoder)) for model, guide in pairs]
    (model, guide), (other, other_guide) = pairs
    torch.manual_seed(1)
    svi = SVI(model, guide, adam(), loss=elbo)
    stepped = [svi.step(x) for _ in range(10)]
    torch.manual_seed(1)
    module = elbo(other, other_guide)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-2)
    expected = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = module(x)
        loss.backward()
        optimiser.step()
        expected.append(loss.detach())
    torch.testing.assert_close(torch.tensor(stepped, dtype=F64), torch.stack(expected), rtol=ROUNDING, atol=ROUNDING)
    for one, two in zip(_parameters(model, guide), _parameters(other, other_guide), strict=True):
        torch.testing.assert_close(one, two, rtol=ROUNDING, atol=ROUNDING)


def test_evaluate_loss_trains_nothing():
    model, guide = build()
    before = snapshot(model, guide)
    svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
    torch.manual_seed(1)
    value = svi.evaluate_loss(data())
    torch.manual_seed(1)
    with torch.no_grad():
        assert value == float(AVAE_ELBO()(model, guide)(data()))
    assert not any(moved(before, model, guide))
    assert list(pyro.get_param_store()) == []


@pytest.mark.parametrize("second", ["another", "deepcopy"])
def test_two_pairs_never_share_parameters(second):
    """Neither pairs of one class nor copies of a trained pair, without clearing the store in between."""
    x = data()
    model, guide = build()
    svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
    svi.step(x)
    other, other_guide = build(seed=1) if second == "another" else copy.deepcopy((model, guide))
    before, before_other = snapshot(model, guide), snapshot(other, other_guide)
    other_svi = SVI(other, other_guide, adam(), loss=AVAE_ELBO())
    other_svi.step(x)
    assert not any(moved(before, model, guide))
    assert all(moved(before_other, other, other_guide))
    before_other = snapshot(other, other_guide)
    svi.step(x)
    assert all(moved(before, model, guide))
    assert not any(moved(before_other, other, other_guide))
    assert len(pyro.get_param_store()) == len(before) + len(before_other)


def test_clearing_the_store_between_steps_changes_nothing():
    runs = []
    for clear in (False, True):
        model, guide = build()
        svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
        torch.manual_seed(2)
        for _ in range(4):
            svi.step(data())
            if clear:
                pyro.clear_param_store()
        runs.append(snapshot(model, guide))
    torch.testing.assert_close(runs[0], runs[1], rtol=ROUNDING, atol=ROUNDING)


def test_a_torch_loop_leaves_the_store_empty():
    model, guide = build()
    module = AVAE_ELBO()(model, guide)
    module(data()).backward()
    AVAE_ELBO().loss_and_grads(model, guide, data())
    AVAE_ELBO().terms(model, guide, data())
    pyro.poutine.trace(model).get_trace(data())
    assert len(pyro.get_param_store()) == 0


def test_clipped_adam_and_arguments_by_name():
    model, guide = build()
    before, names = snapshot(guide), []

    def arguments(name):
        names.append(name)
        return {"lr": 0.0 if "encoder" in name else 1e-2, "clip_norm": 1.0}

    svi = SVI(model, guide, pyro.optim.ClippedAdam(arguments), loss=AVAE_ELBO())
    before_model = snapshot(model)
    svi.step(data())
    assert not any(moved(before, guide))
    assert all(moved(before_model, model))
    kinds = {(name.split("_")[0], name.split(".", 1)[1]) for name in names}
    expected = {("ExtendedVAE", name) for name, _ in model.named_parameters()}
    assert kinds == expected | {("AVAEGuide", name) for name, _ in guide.named_parameters()}


def test_a_scheduler_of_pyro_works():
    model, guide = build()
    scheduler = pyro.optim.ExponentialLR({"optimizer": torch.optim.Adam, "optim_args": {"lr": 1e-2}, "gamma": 0.0})
    svi = SVI(model, guide, scheduler, loss=AVAE_ELBO())
    svi.step(data())
    scheduler.step()
    before = snapshot(model, guide)
    svi.step(data())
    assert not any(moved(before, model, guide))


def test_a_frozen_parameter_stays():
    model, guide = build()
    model.decoder.weight.requires_grad_(False)
    before = snapshot(model)
    svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
    svi.step(data())
    names = [name for name, _ in model.named_parameters()]
    assert [n for n, m in zip(names, moved(before, model), strict=True) if not m] == ["observation.decoder.weight"]


def test_weights_in_another_memory_format_train():
    """The store makes tensors contiguous; the optimiser must not end up with a copy."""

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.ConvTranspose2d(2, 3, 2)

        def forward(self, z):
            return self.conv(z[..., None, None])

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 2)

        def forward(self, x):
            loc, raw = self.conv(x).flatten(1).chunk(2, dim=1)
            return loc, raw.exp()

    x = torch.rand(4, 3, 2, 2, dtype=F64, generator=torch.Generator().manual_seed(5))
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = ExtendedVAE(Decoder(), latent_dim=2).double().to(memory_format=memory_format)
        guide = AVAEGuide(Encoder().double().to(memory_format=memory_format), model)
        before = snapshot(model, guide)
        svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
        torch.manual_seed(1)
        for _ in range(5):
            svi.step(x)
        assert all(moved(before, model, guide))
        results.append(snapshot(model, guide))
    assert not guide.encoder.conv.weight.is_contiguous()
    torch.testing.assert_close(results[0], results[1], rtol=ROUNDING, atol=ROUNDING)


def test_a_store_that_was_saved_comes_back(tmp_path):
    x, path = data(), str(tmp_path / "store.pt")
    model, guide = build()
    svi = SVI(model, guide, adam(), loss=AVAE_ELBO())
    for _ in range(5):
        svi.step(x)
    saved = snapshot(model, guide)
    pyro.get_param_store().save(path)
    for _ in range(5):
        svi.step(x)
    assert all(moved(saved, model, guide))
    pyro.get_param_store().load(path)
    # the values come back when SVI next collects parameters; a step of length zero changes nothing else
    SVI(model, guide, adam(lr=0.0), loss=AVAE_ELBO()).step(x)
    torch.testing.assert_close(snapshot(model, guide), saved, rtol=0, atol=0)
    assert all(pyro.get_param_store().param_name(p) for p in _parameters(model, guide))
    svi.step(x)
    assert all(moved(saved, model, guide))


SCRIPT = """
import sys, pyro, torch
from pyro_avae import AVAE_ELBO
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE

verb, path = sys.argv[1:]
torch.manual_seed({"save": 0, "load": 1}[verb])
model = ExtendedVAE(torch.nn.Linear(2, 5), latent_dim=2, rho="learned")
guide = AVAEGuide(LinearEncoder(5, 2), model)
svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": {"save": 0.1, "load": 0.0}[verb]}), loss=AVAE_ELBO())
if verb == "load":
    pyro.get_param_store().load(path)
svi.step(torch.ones(3, 5))
if verb == "save":
    pyro.get_param_store().save(path)
print(*[f"{float(p.detach().double().sum()):.12f}" for p in [*model.parameters(), *guide.parameters()]])
"""


def test_a_fresh_process_goes_on_from_a_saved_store(tmp_path):
    def run(verb):
        command = [sys.executable, "-W", "error", "-c", SCRIPT, verb, str(tmp_path / "store.pt")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("save") == run("load")


def test_a_users_own_program_beside_the_pair_keeps_its_pyro_params():
    model, guide = build()

    def with_param(x):
        offset = pyro.param("offset", torch.tensor(0.0, dtype=F64))
        return model(x + offset)

    before = snapshot(model, guide)
    svi = SVI(with_param, guide, adam(), loss=AVAE_ELBO())
    svi.step(data())
    assert bool(pyro.param("offset") != 0)
    assert all(moved(before, model, guide))


def test_registering_outside_of_svi_does_nothing():
    register_parameters(nn.Linear(2, 2))
    assert len(pyro.get_param_store()) == 0
    with pyro.poutine.trace():
        register_parameters(nn.Linear(2, 2))
    assert len(pyro.get_param_store()) == 0
