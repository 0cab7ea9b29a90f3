"""Several seeds in one step: each is what it would be alone."""

from dataclasses import replace

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.seeds import SeedsProgram, StackedProgram
from pyro_avae.compilation.step import SVIProgram
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.triples import make_triple
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE

SEEDS = (3, 4, 5)


@pytest.fixture
def traced_only(monkeypatch):
    """Run the traced graph itself: all but inductor, in a hundredth of the time."""
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)


def module_of(seed, **options):
    common = {"dataset": "color-mnist", "image_shape": (3, 8, 8), "hidden": (8,), "latent_dim": 3, **options}
    model, guide, elbo = make_triple(replace(settings_for(common), seed=seed))
    return elbo(model.double().train(), guide.double().train())


def alone(modules, **options):
    return [
        _step(SVIProgram, Program(m, mean=True), NoiseSource(s), **options) for m, s in zip(modules, SEEDS, strict=True)
    ]


def together(modules, **options):
    stacked = StackedProgram([Program(module, mean=True) for module in modules])
    return _step(SeedsProgram, stacked, [NoiseSource(seed) for seed in SEEDS], **options)


def _step(kind, program, noise, *, compiled=True, max_grad_norm=None):
    optimizer = torch.optim.Adam(program.parameters.values(), lr=1e-2)
    return kind(program, optimizer, noise, max_grad_norm=max_grad_norm, compiled=compiled)


def batches(count=5):
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(len(SEEDS), 6, 3, 8, 8, generator=generator, dtype=torch.float64).round() for _ in range(count)]


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "vae"},
        {"method": "avae"},
        {"method": "avae", "rho": "natural"},
        {"method": "avae", "rho": "learned", "num_views": 2},
        {"method": "avae", "gradient": "cut"},
        {"method": "avae", "likelihood": "bernoulli", "gradient": "cut"},
        {"method": "avae", "normalization": "batch"},
        {"method": "avae", "architecture": "conv", "channels": 4},
        {"method": "se", "coupling": "optimal", "attack_steps": 2},
        {"method": "se-avae", "attack_steps": 2},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_each_seed_is_what_it_is_alone(options, compiled):
    pyro.enable_validation(False)
    modules, others = ([module_of(seed, **options) for seed in SEEDS] for _ in range(2))
    step, steps = together(modules, compiled=compiled), alone(others, compiled=False)
    for x in batches():
        found, expected = step(x), torch.stack([one(rows) for one, rows in zip(steps, x, strict=True)])
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
        for name, term in step.terms.items():
            torch.testing.assert_close(term, torch.stack([s.terms[name] for s in steps]), rtol=1e-9, atol=1e-9)
    for module, other in zip(modules, others, strict=True):
        torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=1e-7, atol=1e-9)
    first, second = (next(iter(module.parameters())) for module in modules[:2])
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("traced_only")
@pytest.mark.parametrize("compiled", [True, False])
def test_clipping_has_a_norm_for_each_seed(compiled):
    modules, others = ([module_of(seed) for seed in SEEDS] for _ in range(2))
    step = together(modules, compiled=compiled, max_grad_norm=5.0)
    steps = alone(others, compiled=False, max_grad_norm=5.0)
    x = batches(1)[0]
    x[0] *= 0.1  # another norm
    step(x)
    for one, rows in zip(steps, x, strict=True):
        one(rows)
    for module, other in zip(modules, others, strict=True):
        torch.testing.assert_close(module.state_dict(), other.state_dict(), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("traced_only")
def test_frozen_networks_are_each_pairs_own():
    """A trace reads them from outside; those of the first pair are not those of the others."""

    def frozen(seed):
        torch.manual_seed(seed)
        decoder = nn.Linear(2, 4).double().requires_grad_(False)
        model = ExtendedVAE(decoder, latent_dim=2, rho=0.9, obs_variance=0.5)
        return AVAE_ELBO()(model, AVAEGuide(LinearEncoder(4, 2).double(), model)).train()

    modules, others = ([frozen(seed) for seed in SEEDS] for _ in range(2))
    step, steps = together(modules), alone(others, compiled=False)
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    found = torch.stack([step(x) for _ in range(3)])
    expected = torch.stack([torch.stack([s(rows) for s, rows in zip(steps, x, strict=True)]) for _ in range(3)])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_the_programs_tensors_are_parts_of_the_stacked_ones_until_they_are_released():
    modules = [module_of(seed) for seed in SEEDS]
    before = [module.state_dict()["model.observation.decoder.layers.0.weight"].clone() for module in modules]
    stacked = StackedProgram([Program(module) for module in modules])
    whole = next(iter(stacked.parameters.values()))
    with torch.no_grad():
        for parameter in stacked.parameters.values():
            parameter += 1
    for module, then in zip(modules, before, strict=True):
        torch.testing.assert_close(module.state_dict()["model.observation.decoder.layers.0.weight"], then + 1)
    stacked.release()
    with torch.no_grad():
        whole.zero_()
    storages = {p.untyped_storage().nbytes() == p.numel() * p.element_size() for m in modules for p in m.parameters()}
    assert storages == {True}
    assert all(bool(p.any()) for module in modules for p in module.parameters())


def test_pairs_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="expected pairs of one structure"):
        StackedProgram([Program(module_of(0)), Program(module_of(1, latent_dim=4))])
    module = module_of(0)
    with pytest.raises(InputError, match="a pair for each seed, got two that share parameters"):
        StackedProgram([Program(module), Program(module)])
