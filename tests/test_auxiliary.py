"""Auxiliary draws: recorded, reparametrised, never scored."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceGraph_ELBO
from pyro.poutine.messenger import Messenger
from torch.nn.functional import softplus

from pyro_avae import AVAE_ELBO
from pyro_avae.auxiliary_draw import AUXILIARY, auxiliary

F64 = torch.float64
#: Some tens of roundings in float64.
ROUNDING = 1e3 * torch.finfo(F64).eps


def test_a_draw_is_recorded_with_its_distribution_and_not_scored():
    normal = dist.Normal(torch.zeros(2, 3), 2.0).to_event(1)
    torch.manual_seed(0)
    trace = poutine.trace(lambda: auxiliary("x_aux", normal)).get_trace()
    torch.manual_seed(0)
    site = trace.nodes["x_aux"]
    torch.testing.assert_close(site["value"], 2.0 * torch.randn(2, 3), rtol=0, atol=0)
    assert site["infer"][AUXILIARY] is normal
    assert trace.nodes["_RETURN"]["value"] is site["value"]
    assert float(trace.log_prob_sum()) == 0.0


def test_a_draw_outside_of_pyro_is_a_plain_sample():
    torch.manual_seed(0)
    value = auxiliary("x_aux", dist.Normal(torch.zeros(2), 1.0))
    torch.manual_seed(0)
    torch.testing.assert_close(value, torch.randn(2), rtol=0, atol=0)


def test_a_reparametrised_draw_keeps_its_gradient():
    loc = torch.zeros(3, requires_grad=True)
    trace = poutine.trace(lambda: auxiliary("x_aux", dist.Normal(loc, 1.0).to_event(1))).get_trace()
    (grad,) = torch.autograd.grad(trace.nodes["x_aux"]["value"].sum(), loc)
    torch.testing.assert_close(grad, torch.ones(3))


def test_a_handler_can_put_a_value_there():
    class Put(Messenger):
        def _pyro_auxiliary(self, message):
            message["value"], message["done"] = torch.tensor(7.0), True

    with Put():
        assert float(auxiliary("x_aux", dist.Normal(0.0, 1.0))) == 7.0


def test_two_draws_of_one_name_are_refused_like_any_site():
    def twice():
        auxiliary("x_aux", dist.Normal(0.0, 1.0))
        auxiliary("x_aux", dist.Normal(0.0, 1.0))

    with pytest.raises(RuntimeError, match="Multiple sample sites named 'x_aux'"):
        poutine.trace(twice).get_trace()


@pytest.mark.parametrize("elbo", [AVAE_ELBO, Trace_ELBO, TraceGraph_ELBO])
def test_no_elbo_keeps_a_score_function_term_for_a_coin(elbo):
    """The trap: masking an ordinary Bernoulli site gives the right loss and a wrong gradient at its probability."""
    logit = torch.tensor(0.4, dtype=F64, requires_grad=True)
    weight = torch.tensor(0.7, dtype=F64, requires_grad=True)

    def model():
        pyro.sample("z", dist.StudentT(torch.tensor(3.0, dtype=F64)))
        pyro.factor("use_logit", -softplus(logit))

    def guide():
        coin = auxiliary("x_aux", dist.Bernoulli(logits=logit))
        pyro.sample("z", dist.Normal(weight * coin, 1.0))

    torch.manual_seed(1)
    if elbo is TraceGraph_ELBO:
        # it has no differentiable loss; its surrogate's gradient is what SVI uses
        elbo().loss_and_grads(model, guide)
        grads = logit.grad, weight.grad
    else:
        grads = torch.autograd.grad(elbo().differentiable_loss(model, guide), [logit, weight])
    torch.manual_seed(1)
    coin = torch.bernoulli(torch.sigmoid(logit.detach()))
    z = weight * coin + torch.randn((), dtype=F64)
    # q is a normal of unit scale at its own sample: log q does not depend on weight
    loss = 2.0 * torch.log1p(z**2 / 3) + softplus(logit)
    for grad, expected in zip(grads, torch.autograd.grad(loss, [logit, weight]), strict=True):
        torch.testing.assert_close(grad, expected, rtol=ROUNDING, atol=ROUNDING)
    assert float(coin) == 1.0  # else the gradient at weight would be zero on both sides
