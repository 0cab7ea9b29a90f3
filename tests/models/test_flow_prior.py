"""The autoregressive-flow prior, and the coupling in its base."""

import copy

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

from pyro_avae import AVAE_ELBO
from pyro_avae.coupling import FixedRho, PairwisePrior, PushedCoupling
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE, FlowPrior

F64 = torch.float64
KINDS = pytest.mark.parametrize("mean_only", [True, False])


def make_flow(*, size=3, steps=3, mean_only=False, seed=0):
    torch.manual_seed(seed)
    flow = FlowPrior(size, steps=steps, hidden=[16], mean_only=mean_only).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2)
    return flow


def standard(size=3):
    return dist.Normal(torch.zeros(size, dtype=F64), 1.0).to_event(1)


def log_density(flow, z):
    return float(flow(standard()).log_prob(z).detach())


@KINDS
def test_the_density_is_that_of_the_change_of_variables(mean_only):
    """log N(f^-1(z)) + log |det| with the determinant of autograd's Jacobian."""
    flow = make_flow(mean_only=mean_only)
    z = torch.randn(3, dtype=F64)
    jacobian = torch.autograd.functional.jacobian(flow.base, z)
    expected = standard().log_prob(flow.base(z)) + torch.linalg.slogdet(jacobian).logabsdet
    assert log_density(flow, z) == pytest.approx(float(expected.detach()), abs=1e-12)
    if mean_only:
        assert float(torch.linalg.slogdet(jacobian).logabsdet) == pytest.approx(0, abs=1e-12)


@KINDS
def test_a_sample_goes_back_to_its_base(mean_only):
    flow = make_flow(mean_only=mean_only)
    torch.manual_seed(5)
    z = flow(standard()).expand((7,)).sample()
    torch.manual_seed(5)
    noise = standard().expand((7,)).sample()
    assert (flow.base(z) - noise).abs().max() < 1e-10
    assert (z - noise).abs().max() > 1e-2


@KINDS
def test_the_bound_is_that_of_the_inverse_flow_on_the_posterior(mean_only):
    """Equations 12 to 14, draw by draw: f on the prior is f^-1 on the posterior with the decoder behind f."""
    flow = make_flow(mean_only=mean_only)
    torch.manual_seed(1)
    decoder, encoder = torch.nn.Linear(3, 5).double(), LinearEncoder(5, 3).double()
    x = torch.randn(4, 5, dtype=F64)
    model = VAE(decoder, latent_dim=3, prior=flow)
    guide = AmortizedGuide(encoder)
    torch.manual_seed(2)
    loss = AVAE_ELBO()(model, guide)(x)
    torch.manual_seed(2)
    q = guide.posterior(x)
    z = q.rsample()
    volumes = [torch.linalg.slogdet(torch.autograd.functional.jacobian(flow.base, row)).logabsdet for row in z]
    epsilon = flow.base(z)
    posterior = q.log_prob(z) - torch.stack(volumes)  # of epsilon
    inside = flow(standard()).transforms
    back = epsilon
    for transform in inside:
        back = transform(back)
    expected = model.observe(back).log_prob(x) + standard().log_prob(epsilon) - posterior
    assert float(-loss.detach()) == pytest.approx(float(expected.sum().detach()), rel=1e-10)


def test_a_density_after_an_update_is_that_of_the_new_parameters():
    """Pyro's transforms remember a result by the identity of its argument."""
    flow, z = make_flow(), torch.randn(3, dtype=F64)
    before = log_density(flow, z)
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    after = log_density(flow, z)
    assert after != before
    assert after == log_density(flow, z.clone())


def test_it_is_copied_with_its_graph_left_behind():
    flow = make_flow()
    (-flow(standard()).log_prob(torch.randn(2, 3, dtype=F64))).sum().backward()
    twin = copy.deepcopy(flow)
    z = torch.randn(3, dtype=F64)
    assert log_density(twin, z) == log_density(flow, z)
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    assert log_density(twin, z) != log_density(flow, z)


def test_its_scales_have_no_gradient_where_they_are_one():
    flow = make_flow(mean_only=True)
    flow(standard()).log_prob(torch.randn(2, 3, dtype=F64)).sum().backward()
    assert sum(p.numel() for p in flow.parameters()) < sum(p.numel() for p in make_flow().parameters())
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())


@KINDS
def test_the_coupling_leaves_the_prior_invariant(mean_only):
    """p(z) p(z'|z) is symmetric, which implies it: detailed balance, at random points."""
    flow = make_flow(mean_only=mean_only)
    coupling, prior = PushedCoupling(FixedRho(0.8, latent_dim=3), flow), flow(standard())
    z, other = torch.randn(2, 6, 3, dtype=F64)
    there = prior.log_prob(z) + coupling(z).log_prob(other)
    back = prior.log_prob(other) + coupling(other).log_prob(z)
    assert (there - back).abs().max() < 1e-10


def test_the_avae_has_its_coupling_in_the_base():
    flow = make_flow(mean_only=True)
    model = ExtendedVAE(torch.nn.Linear(3, 5).double(), latent_dim=3, rho=0.9, prior=flow)
    guide = AVAEGuide(LinearEncoder(5, 3).double(), model)
    x = torch.randn(4, 5, dtype=F64)
    assert isinstance(model.coupling, PushedCoupling) and model.coupling.rho == 0.9
    names = [name for name in model.state_dict() if name.startswith("coupling")]
    assert names == []
    loss = AVAE_ELBO()(model, guide)(x)
    loss.backward()
    assert all(p.grad is not None for p in (*model.parameters(), *guide.parameters()))


def test_without_a_flow_to_speak_of_it_is_the_avae():
    """f the identity: the same bound as with N(0, I), but for the KL of z and z_aux at their samples."""
    torch.manual_seed(0)
    flow = make_flow(mean_only=True)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    decoder, encoder = torch.nn.Linear(3, 5).double(), LinearEncoder(5, 3).double()
    x = torch.randn(1, 5, dtype=F64).expand(4000, 5)  # 4,000 draws of one image
    terms = []
    for prior in (None, flow):
        model = ExtendedVAE(decoder, latent_dim=3, rho=0.9, prior=prior)
        torch.manual_seed(1)
        trace = poutine.trace(AVAEGuide(encoder, model)).get_trace(x)
        torch.manual_seed(1)
        found = AVAE_ELBO().terms(model, AVAEGuide(encoder, model), x)
        terms.append({name: float(term.detach()) / 4000 for name, term in found.items()})
    assert terms[0]["x"] == pytest.approx(terms[1]["x"], rel=1e-12)
    q, z = trace.nodes["z"]["fn"], trace.nodes["z"]["value"]
    drawn = (standard().log_prob(z) - q.log_prob(z)).detach()
    assert terms[1]["z"] == pytest.approx(float(drawn.mean()), rel=1e-10)
    assert terms[0]["z"] == pytest.approx(terms[1]["z"], abs=5 * float(drawn.std()) / 4000**0.5)
    q, other = trace.nodes["z_aux"]["fn"], trace.nodes["z_aux"]["value"]
    drawn = (FixedRho(0.9, latent_dim=3)(z).log_prob(other) - q.log_prob(other)).detach()
    assert terms[1]["z_aux"] == pytest.approx(float(drawn.mean()), rel=1e-10)
    assert terms[0]["z_aux"] == pytest.approx(terms[1]["z_aux"], abs=5 * float(drawn.std()) / 4000**0.5)


def test_impossible_flows_are_refused():
    with pytest.raises(InputError, match="at least 2 latents"):
        FlowPrior(1)
    with pytest.raises(InputError, match="latent_dim=2, got one of 3"):
        VAE(torch.nn.Linear(2, 5), latent_dim=2, prior=FlowPrior(3, steps=1, hidden=[4]))
    with pytest.raises(InputError, match="PairwisePrior sets another prior"):
        ExtendedVAE(
            torch.nn.Linear(2, 5), latent_dim=2, rho=PairwisePrior(1.0), prior=FlowPrior(2, steps=1, hidden=[4])
        )
