"""Traced programs: the numbers and gradients of the eager ones, for every method and for programs that are not ours."""

import copy
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoDiagonalNormal, AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.check import check_trace
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.trace import run_with_noise, trace_program
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.methods import METHODS
from pyro_avae.experiments.triples import make_triple
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE
from pyro_avae.views import Perturbed


def pair_of(method, **options):
    """``elbo(model, guide)`` of a method of the table, in training mode, and a batch."""
    given = {"dataset": "color-digits", "hidden": (6,), "latent_dim": 2, "image_shape": (3, 8, 8), "method": method}
    model, guide, elbo = make_triple(settings_for({**given, **options}))
    x = torch.rand(5, 3, 8, 8)
    return elbo(model.train(), guide.train()), x.round() if options.get("likelihood") == "bernoulli" else x


def same(module, x):
    """Trace, and compare everything with the eager program on noise that the trace never saw."""
    program = Program(module)
    traced = trace_program(program, [x])
    source = NoiseSource(7)
    noise = [source.draw(spec) for spec in traced.specs]
    parameters = list(program.parameters.values())
    expected = run_with_noise(program, parameters, program.buffers, noise, x)
    found = traced(parameters, program.buffers, noise, x)
    # The same operations in the same order.
    close = {"rtol": 1e-6, "atol": 1e-6}
    torch.testing.assert_close(found.loss, expected.loss, **close)
    torch.testing.assert_close(found.terms, expected.terms, **close)
    assert [g is None for g in found.gradients] == [g is None for g in expected.gradients]
    for one, other in zip(found.gradients, expected.gradients, strict=True):
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(expected.loss.abs()))
    left = dict(zip(traced.changed, found.buffers, strict=True))
    for place, (before, other) in enumerate(zip(program.buffers, expected.buffers, strict=True)):
        torch.testing.assert_close(left.get(place, before), other, **close)
    return traced


CASES = [
    *((method, {}) for method in METHODS if method != "avae-ss"),
    *(("avae", {"rho": rho}) for rho in ("learned", "natural", "learned-per-dimension", "0.9")),
    *(("se", {"coupling": coupling}) for coupling in ("optimal", "pairwise")),
    ("se-avae", {"coupling": "optimal", "normalization": "batch"}),
    ("avae", {"normalization": "batch", "auxiliary_statistics": "running"}),
    ("avae", {"num_views": 3, "input_noise": 0.1, "beta": 2.0}),
    ("avae", {"gradient": "cut", "view": "mean", "likelihood": "gaussian-learned"}),
    *(("avae", {"likelihood": name}) for name in ("bernoulli", "continuous-bernoulli")),
]


@pytest.mark.parametrize(("method", "options"), CASES)
def test_every_method_is_traced(method, options):
    if options.get("rho") == "0.9":
        options = {"rho": 0.9}
    module, x = pair_of(method, **options)
    traced = same(module, x)
    assert {"x", "z"} <= set(traced.names)
    assert bool(traced.changed) == ("normalization" in options or options.get("rho") == "natural")


def test_the_self_supervised_method_is_traced():
    model, guide, elbo = make_triple(settings_for({"method": "avae-ss", "hidden": (6,), "latent_dim": 2}))
    traced = same(elbo(model.train(), guide.train()), torch.empty(5, 0))
    assert all(p.grad is None for p in model.parameters()) and "z_aux" in traced.names


@pytest.mark.parametrize("options", [{"num_particles": 3}, {"num_particles": 3, "vectorize_particles": True}])
def test_particles(options):
    model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho=0.9, obs_variance=0.5)
    elbo = AVAE_ELBO(**options)
    same(elbo(model, AVAEGuide(LinearEncoder(4, 2), model)), torch.rand(5, 4))


@pytest.mark.parametrize(
    ("method", "passes"),
    [("vae", 2), ("avae", 3), ("se", 3 + 5)],
)
def test_no_pass_through_a_network_is_computed_twice(method, passes):
    """The AVAE decodes once, for the model and for its view; SE encodes x, its worst case and 5 steps to it."""
    module, x = pair_of(method)
    traced = trace_program(Program(module), [x])
    forward = [node for node in traced.graph.graph.nodes if node.target is torch.ops.aten.addmm.default]
    assert len(forward) == 2 * passes  # networks of two layers


def test_the_graph_writes_to_nothing():
    module, x = pair_of("avae", normalization="batch")
    graph = trace_program(Program(module), [x]).graph.graph
    schemas = [node.target._schema for node in graph.nodes if hasattr(node.target, "_schema")]
    assert len(schemas) > 100 and not any(schema.is_mutable for schema in schemas)


def test_nothing_is_left_changed():
    module, x = pair_of("se-avae", normalization="batch", rho="learned")
    state, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    parameters = {name: id(parameter) for name, parameter in module.named_parameters()}
    program = Program(module)
    check_trace(trace_program(program, [x]), program, [x])
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == parameters
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert not list(pyro.get_param_store().keys())
    assert not pyro.settings.get("module_local_params")
    module(x).backward()


class Regression(PyroModule):
    """Bayesian regression with a constrained parameter, a latent shared by all data and a plate."""

    def __init__(self):
        super().__init__()
        self.noise = PyroParam(torch.tensor(0.5), constraint=dist.constraints.positive)
        self.linear = nn.Linear(3, 1)

    def forward(self, x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal(x @ w + self.linear(x)[:, 0], self.noise), obs=y)


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO, AVAE_ELBO])
@pytest.mark.parametrize("autoguide", [AutoNormal, AutoDiagonalNormal])
def test_programs_and_elbos_that_are_not_ours(elbo, autoguide):
    model = Regression()
    guide = autoguide(model)
    x, y = torch.randn(6, 3), torch.randn(6)
    guide(x, y)
    options = {"max_plate_nesting": 1} if elbo is AVAE_ELBO else {}
    if elbo is TraceMeanField_ELBO and autoguide is AutoDiagonalNormal:
        pytest.skip("stock TraceMeanField_ELBO does not take its auxiliary site")
    module = elbo(**options)(model, guide)
    program = Program(module)
    traced = trace_program(program, [x, y])
    check_trace(traced, program, [x, y])
    source = NoiseSource(3)
    noise = [source.draw(spec) for spec in traced.specs]
    found = traced(list(program.parameters.values()), program.buffers, noise, x, y)
    # The stock ELBO itself, on the same noise.
    given = iter(noise)
    from pyro_avae.compilation import BaseNoise

    pyro.clear_param_store()
    with BaseNoise(lambda spec: next(given)):
        loss = module(x, y)
    torch.testing.assert_close(found.loss, loss.detach())
    expected = torch.autograd.grad(loss, list(program.parameters.values()))
    torch.testing.assert_close(found.gradients, list(expected))


class Mixture(nn.Module):
    """Two enumerated components."""

    def __init__(self):
        super().__init__()
        self.locs = nn.Parameter(torch.tensor([-1.0, 1.5]))

    def forward(self, x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(self.locs[k], 1.0), obs=x)


class Nothing(nn.Module):
    def forward(self, x):
        pass


def test_a_latent_that_is_enumerated_is_refused():
    module = TraceEnum_ELBO(max_plate_nesting=1)(Mixture(), Nothing())
    with pytest.raises(InputError, match=r"looks at a number, which a compiled step cannot have; run it eagerly"):
        trace_program(Program(module), [torch.randn(6)])


def test_an_elbo_without_a_differentiable_loss_is_refused():
    with pytest.raises(InputError, match="elbo: TraceGraph_ELBO has no differentiable_loss"):
        Program(TraceGraph_ELBO()(Mixture(), Nothing()))


def test_a_tensor_that_is_changed_in_place_is_seen():
    delta = torch.zeros(4)
    model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho=0.9, obs_variance=0.5)
    elbo = AVAE_ELBO(kl_weight=torch.tensor(0.0))
    module = elbo(model, AVAEGuide(LinearEncoder(4, 2), model, view=Perturbed(delta)))
    program, x = Program(module), torch.rand(5, 4)
    traced = trace_program(program, [x])
    for value in (0.3, 0.7):
        delta.fill_(value)
        elbo.kl_weight.fill_(value)
        check_trace(traced, program, [x])


class Untraceable(nn.Module):
    """A model that does one thing that no trace can have."""

    def __init__(self, deed):
        super().__init__()
        self.deed, self.loc = deed, nn.Parameter(torch.tensor(0.5))
        self.calls = 0

    def forward(self, x):
        loc = self.deed(self, x)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def _item(model, x):
    return model.loc * x.sum().item()


def _branch(model, x):
    return model.loc if x.sum() > 0 else -model.loc


def _shape(model, x):
    return model.loc * x[x > 0].sum() + len(x[x > 0])


def _gamma(model, x):
    return model.loc * pyro.sample("rate", dist.Gamma(2.0, 1.0), infer={"is_auxiliary": True})


def _store(model, x):
    return pyro.param("kept", torch.tensor(1.0)) * model.loc


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (_item, r"test_trace.py:\d+: aten._local_scalar_dense.default looks at a number, .* run it eagerly"),
        (_branch, r"test_trace.py:\d+: aten._local_scalar_dense.default looks at a number"),
        (_shape, r"test_trace.py:\d+: aten.index.Tensor makes a shape that depends on data"),
        (_gamma, r"site 'rate', .*test_trace.py:\d+: aten._standard_gamma.default draws random numbers that are no"),
        (_store, "site 'kept': pyro.param keeps its tensor in Pyro's global store"),
    ],
)
def test_what_cannot_be_traced_is_named(deed, message):
    with pytest.raises(InputError, match=message):
        trace_program(Program(Trace_ELBO()(Untraceable(deed), Nothing())), [torch.randn(4)])
    assert not list(pyro.get_param_store().keys())


def _counter(model, x):
    model.calls += 1
    return model.loc * model.calls


def test_a_program_that_changes_from_call_to_call_is_found_out():
    program = Program(Trace_ELBO()(Untraceable(_counter), Nothing()))
    x = torch.randn(4)
    traced = trace_program(program, [x])
    with pytest.raises(InputError, match="differs between the traced and the eager step"):
        check_trace(traced, program, [x])


def test_a_right_trace_may_differ_on_a_draw_where_rounding_flips_a_sign():
    """As in a worst case; one that differs on every draw is refused."""
    module, x = pair_of("avae")
    program = Program(module)
    traced = trace_program(program, [x])
    right, calls = traced.run, []

    def run(tensors, wrong):
        calls.append(wrong)
        loss, *rest = right(tensors)
        return (loss + 1e6 * wrong(len(calls)), *rest)

    traced.run = partial(run, wrong=lambda call: call == 1)
    check_trace(traced, program, [x])
    assert len(calls) == 2
    traced.run = partial(run, wrong=lambda call: True)
    with pytest.raises(InputError, match="the loss differs between the traced and the eager step"):
        check_trace(traced, program, [x])


def test_autocast_is_part_of_the_trace():
    module, x = pair_of("avae")
    program = Program(module, autocast=torch.bfloat16)
    traced = trace_program(program, [x])
    check_trace(traced, program, [x])
    assert any(node.meta["val"].dtype is torch.bfloat16 for node in traced.graph.graph.nodes if "val" in node.meta)
