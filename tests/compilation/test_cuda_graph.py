"""Recorded steps: static inputs, a warm-up that leaves no trace, and the numbers of the steps that they stand for."""

import copy

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation import compile_step
from pyro_avae.compilation.cuda_graph import can_be_recorded
from pyro_avae.compilation.trace import TracedProgram
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE


class Recorded:
    """What a CUDA graph does, on any device: recording runs nothing, running again fills the same results."""

    def __init__(self):
        self.warm_ups = self.records = self.runs = 0

    def warm_up(self, body):
        self.warm_ups += 1
        body()

    def record(self, body):
        self.records += 1
        results = []

        def replay():
            self.runs += 1
            results[:] = body()

        return replay, results


@pytest.fixture(autouse=True)
def traced_only(monkeypatch):
    monkeypatch.setattr(TracedProgram, "compile", lambda self: None)


def module_of():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), LinearEncoder(4, 2))
    model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho="learned", obs_variance=0.5)
    return AVAE_ELBO(with_entropy=True)(model, AVAEGuide(encoder, model)).train()


def batches(count, size=6):
    generator = torch.Generator().manual_seed(3)
    return [torch.rand(size, 4, generator=generator) for _ in range(count)]


OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1, amsgrad=True),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("begun", [0, 2])
def test_recorded_training_is_that_of_the_steps(name, begun):
    """Also where the optimiser has a state already, as a resumed run's."""
    found, recorder = [], Recorded()
    for recorded in (True, False):
        module = module_of()
        with pyro.validation_enabled(False):
            step = compile_step(module, OPTIMIZERS[name](module.parameters()), batches(1)[0], max_grad_norm=1.0)
            data = batches(7)
            losses = [step(x) for x in data[:begun]]
            if recorded:
                step.record_with(recorder)
            for x in data[begun:]:
                losses.append(step(x))
                terms, entropy = dict(step.terms), dict(step.entropy)
        found.append((torch.stack(losses), module.state_dict(), terms, entropy))
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)
    assert (recorder.warm_ups, recorder.records, recorder.runs) == (3, 1, 7 - begun)


def test_each_shape_is_recorded_once_and_results_are_not_overwritten():
    module, recorder = module_of(), Recorded()
    step = compile_step(module, torch.optim.SGD(module.parameters(), lr=0.01), batches(1)[0])
    step.trace(batches(1, size=3)[0])
    step.record_with(recorder)
    losses = [step(x) for x in [*batches(2), *batches(2, size=3), *batches(2)]]
    kept = copy.deepcopy(losses)
    step(batches(1)[0])
    assert recorder.records == 2
    assert all(torch.equal(one, other) for one, other in zip(losses, kept, strict=True))


def test_only_a_cuda_step_with_a_capturable_optimizer_is_recorded():
    parameters = [nn.Parameter(torch.zeros(1))]
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    assert not can_be_recorded(torch.optim.Adam(parameters), cuda)
    assert not can_be_recorded(torch.optim.SGD(parameters), cuda)
    ready = torch.optim.Adam(parameters)
    ready.param_groups[0]["capturable"] = True
    assert can_be_recorded(ready, cuda) and not can_be_recorded(ready, cpu)


@pytest.mark.cuda
def test_a_cuda_graph_trains_as_the_steps_do(monkeypatch):
    monkeypatch.undo()
    found = []
    for capturable in (True, False):
        module = module_of().cuda()
        optimizer = torch.optim.Adam(module.parameters(), lr=0.05, fused=True, capturable=capturable)
        with pyro.validation_enabled(False):
            step = compile_step(module, optimizer, batches(1)[0].cuda())
            losses = [step(x.cuda()) for x in batches(7)]
        found.append((torch.stack(losses), module.state_dict()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
