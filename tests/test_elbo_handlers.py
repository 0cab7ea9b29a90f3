"""Scales, masks, factors and sites of one side alone: what Pyro's handlers do to AVAE_ELBO."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE

F64 = torch.float64
#: Some tens of roundings in float64.
ROUNDING = 1e3 * torch.finfo(F64).eps
X = torch.linspace(-1, 2, 4, dtype=F64)


def nothing(site: str):
    """A context that changes nothing."""
    return poutine.scale(scale=1.0)


def pair(in_model=nothing, in_guide=nothing, family=dist.Normal):
    """z ~ N(0, 1), x ~ N(z, 1) and z ~ q(m, s); the contexts wrap the site z (and x in the model)."""
    m = torch.tensor(0.3, dtype=F64, requires_grad=True)
    s = torch.tensor(0.8, dtype=F64, requires_grad=True)

    def model(x):
        with pyro.plate("data", len(x)):
            with in_model("z"):
                z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            with in_model("x"):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), in_guide("z"):
            pyro.sample("z", family(m.expand_as(x), s))

    return model, guide, (m, s)


def student(loc, scale):
    """Reparametrised, and its KL to a normal has no closed form."""
    return dist.StudentT(torch.tensor(5.0, dtype=F64), loc, scale)


def evaluate(elbo, model, guide, parameters):
    torch.manual_seed(2)
    loss = elbo.differentiable_loss(model, guide, X)
    return loss, *torch.autograd.grad(loss, parameters)


def assert_equal(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=ROUNDING, atol=ROUNDING)


def expected_terms(z, m=0.3, s=0.8, weights=1.0):
    s = torch.tensor(s, dtype=F64)
    kl = 0.5 * (m**2 + s**2 - 1) - s.log()
    log_likelihood = -0.5 * (X - z) ** 2 - 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=F64))
    return {"x": (weights * log_likelihood).sum(), "z": -(weights * kl * torch.ones(4, dtype=F64)).sum()}


@pytest.mark.parametrize("scale", [0.5, 3, torch.tensor(2.5, dtype=F64)])
def test_the_same_scale_on_both_sides_scales_the_term(scale):
    context = lambda site: poutine.scale(scale=scale) if site == "z" else nothing(site)  # noqa: E731
    model, guide, _ = pair(context, context)
    torch.manual_seed(2)
    terms = AVAE_ELBO().terms(model, guide, X)
    torch.manual_seed(2)
    expected = expected_terms(0.3 + 0.8 * torch.randn(4, dtype=F64))
    assert_equal((terms["x"], terms["z"]), (expected["x"], float(scale) * expected["z"]))


@pytest.mark.parametrize("scale", [4.0, torch.tensor(4.0, dtype=F64)])
@pytest.mark.parametrize("side", ["model", "guide"])
def test_a_scale_on_one_side_is_refused(side, scale):
    context = lambda site: poutine.scale(scale=scale) if site == "z" else nothing(site)  # noqa: E731
    model, guide, _ = pair(**{f"in_{side}": context})
    with pytest.raises(InputError, match=r"\Asite 'z': scaled by [^\n]*poutine.scale[^\n]*weights[^\n]*\Z"):
        AVAE_ELBO()(model, guide)(X)


def test_two_different_tensors_as_scales_are_refused_while_validating():
    contexts = [
        lambda site, scale=scale: poutine.scale(scale=torch.tensor(scale, dtype=F64)) if site == "z" else nothing(site)
        for scale in (4.0, 2.0)
    ]
    model, guide, _ = pair(*contexts)
    with pytest.raises(InputError, match="site 'z': scaled by a tensor"):
        AVAE_ELBO()(model, guide)(X)


@pytest.mark.parametrize("family", [dist.Normal, student])
def test_a_mask_on_both_sides_leaves_rows_out(family):
    mask = torch.tensor([True, False, True, False])
    context = lambda site: poutine.mask(mask=mask)  # noqa: E731
    masked = pair(context, context, family)
    loss, *grads = evaluate(AVAE_ELBO(), *masked)
    assert_equal((loss, *grads), evaluate(TraceMeanField_ELBO(max_plate_nesting=1), *masked))
    if family is dist.Normal:
        torch.manual_seed(2)
        expected = expected_terms(0.3 + 0.8 * torch.randn(4, dtype=F64), weights=mask.double())
        assert_equal((loss,), (-expected["x"] - expected["z"],))


def test_a_mask_on_one_side_counts_what_is_left_as_stock_pyro_does():
    context = lambda site: poutine.mask(mask=torch.tensor([True, False, True, False]))  # noqa: E731
    model, guide, parameters = pair(in_model=context)
    assert_equal(
        evaluate(AVAE_ELBO(), model, guide, parameters),
        evaluate(Trace_ELBO(max_plate_nesting=1), model, guide, parameters),
    )


def test_a_pair_without_closed_forms_equals_the_stock_trace_elbo():
    without = pair(family=student)
    assert_equal(evaluate(AVAE_ELBO(), *without), evaluate(Trace_ELBO(max_plate_nesting=1), *without))


def test_a_subsampled_plate_scales_both_sides():
    def model(x):
        with pyro.plate("data", 12, subsample_size=4, subsample=torch.arange(4)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", 12, subsample_size=4, subsample=torch.arange(4)):
            pyro.sample("z", dist.Normal(0.3 * torch.ones_like(x), 0.8))

    torch.manual_seed(2)
    terms = AVAE_ELBO().terms(model, guide, X)
    torch.manual_seed(2)
    expected = expected_terms(0.3 + 0.8 * torch.randn(4, dtype=F64))
    assert_equal((terms["x"], terms["z"]), (3 * expected["x"], 3 * expected["z"]))


def flow_pair():
    """The guide draws auxiliary noise u, and z given u."""
    w = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def guide(x):
        with pyro.plate("data", len(x)):
            noise = dist.Normal(x.new_zeros(()), w.exp())
            u = pyro.sample("u", noise, infer={"is_auxiliary": True})
            pyro.sample("z", student(w * u, w))

    model, _, _ = pair()
    return model, guide, (w,)


def test_a_latent_of_the_guide_alone_counts_its_density():
    flow = flow_pair()
    assert_equal(evaluate(AVAE_ELBO(), *flow), evaluate(Trace_ELBO(max_plate_nesting=1), *flow))
    model, guide, _ = flow
    torch.manual_seed(2)
    term = AVAE_ELBO().terms(model, guide, X)["u"]
    torch.manual_seed(2)
    u = torch.randn(4, dtype=F64)  # u / scale
    log_prob = -0.5 * u**2 - 0.7 - 0.5 * torch.log(torch.tensor(2 * torch.pi, dtype=F64))
    assert_equal((term.detach(),), (-log_prob.sum(),))


@pytest.mark.parametrize("side", ["model", "guide"])
def test_a_factor_counts_as_in_stock_pyro(side):
    model, guide, parameters = pair(family=student)

    def with_factor(program):
        def wrapped(x):
            program(x)
            pyro.factor("penalty", parameters[0] ** 2, has_rsample=True if side == "guide" else None)

        return wrapped

    programs = (with_factor(model), guide) if side == "model" else (model, with_factor(guide))
    ours = evaluate(AVAE_ELBO(), *programs, parameters)
    assert_equal(ours, evaluate(Trace_ELBO(max_plate_nesting=1), *programs, parameters))
    without = evaluate(AVAE_ELBO(), model, guide, parameters)
    sign = -1 if side == "model" else 1
    assert_equal((ours[0],), (without[0] + sign * 0.3**2,))


def test_a_factor_with_a_score_function_term_is_refused():
    model, guide, parameters = pair()

    def with_factor(x):
        guide(x)
        pyro.factor("penalty", parameters[0] ** 2, has_rsample=False)

    with pytest.raises(InputError, match="site 'penalty': the guide's Unit cannot be reparametrised"):
        AVAE_ELBO()(model, with_factor)(X)


def test_a_latent_that_the_guide_lacks_is_named():
    model, _, _ = pair()
    with pytest.raises(InputError, match=r"\Asite 'z': latent in the model, but the guide does not draw it\Z"):
        AVAE_ELBO()(model, lambda x: None)(X)


@pytest.mark.parametrize("validate", [True, False])
def test_a_latent_that_cannot_be_reparametrised_is_named(validate):
    def model(x):
        pyro.sample("flag", dist.Bernoulli(0.5))

    def guide(x):
        pyro.sample("flag", dist.Bernoulli(0.4))

    with (
        pyro.validation_enabled(validate),
        pytest.raises(
            InputError, match=r"\Asite 'flag': the guide's Bernoulli cannot be reparametrised[^\n]*TraceGraph_ELBO"
        ),
    ):
        AVAE_ELBO()(model, guide)(X)


def test_a_deterministic_site_has_no_term():
    model, guide, _ = pair()

    def noted(x):
        model(x)
        pyro.deterministic("note", x.sum())

    assert sorted(AVAE_ELBO().terms(noted, guide, X)) == ["x", "z"]


def test_programs_that_do_not_belong_together_are_refused_by_site():
    model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2)
    guide = AVAEGuide(LinearEncoder(5, 2), model)
    with pytest.raises(InputError, match="site 'z_aux': drawn by the guide, but the model has no such site"):
        AVAE_ELBO()(VAE(nn.Linear(2, 5), latent_dim=2), guide)(torch.zeros(3, 5))
