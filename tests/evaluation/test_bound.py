"""Terms of the bound against closed forms and against the loss itself."""

import pytest
import torch

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.evaluation import bound_terms
from pyro_avae.randomness import isolated


def test_ppca_with_its_exact_posterior_has_the_evidence_as_its_bound(exact_pair) -> None:
    model, guide = exact_pair(6, 2)
    x = torch.randn(3, 6, dtype=torch.float64).repeat_interleave(4000, 0)
    terms = bound_terms(model, guide, x)
    loc, tril = (t.detach() for t in guide.encode(x))
    divergence = 0.5 * (
        loc.square().sum(-1) + tril.square().sum((-1, -2)) - 2 - 2 * tril.diagonal(dim1=-1, dim2=-2).log().sum(-1)
    )
    assert terms["z"] == pytest.approx(-float(divergence.mean()), rel=1e-12)
    # The only sampled term; its spread over the posterior gives the Monte Carlo error of the mean.
    with torch.no_grad():
        scores = model.observe(guide.posterior(x).sample()).log_prob(x).reshape(3, 4000)
        evidence = float(model.log_evidence(x).mean())
    error = float(scores.var(1).mean().sqrt()) / len(x) ** 0.5
    assert abs(terms["total"] - evidence) < 4 * error


def test_terms_add_up_to_minus_the_loss_per_image(trained) -> None:
    x, _ = trained.data.test.fixed_batch(torch.arange(32))
    with isolated(5):
        terms = bound_terms(trained.model, trained.guide, x)
    with isolated(5):
        loss = AVAE_ELBO().loss(trained.model, trained.guide, x)
    assert set(terms) == {"x", "z", "z_aux", "total"}
    assert terms["total"] == pytest.approx(-loss / 32, rel=1e-5)
    assert terms["total"] == pytest.approx(terms["x"] + terms["z"] + terms["z_aux"], rel=1e-12)
    assert terms["z"] < 0 and terms["z_aux"] < 0
