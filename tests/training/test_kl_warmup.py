"""The warm-up of the KL terms: the weights it takes, what it is for, and how it is gone on with."""

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import ExtendedVAE
from pyro_avae.training import fit


def pair():
    torch.manual_seed(0)
    model = ExtendedVAE(nn.Linear(2, 4), latent_dim=2, rho=0.9)
    return model, AVAEGuide(LinearEncoder(4, 2), model)


DATA = torch.rand(40, 4, generator=torch.Generator().manual_seed(0))


def test_weights_rise_to_those_of_the_elbo_and_the_loss_is_the_weighted_one():
    elbo = AVAE_ELBO(kl_weight=2.0)
    rows = fit(*pair(), DATA, elbo=elbo, steps=6, kl_warmup=4, log_every=1).history
    assert [row["kl_weight"] for row in rows] == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]
    assert elbo.kl_weight == 2.0, "the user's object is not changed"
    for row in rows:
        assert row["loss"] == pytest.approx(-(row["x"] + row["z"] + row["z_aux"]), rel=1e-6)


def test_the_first_steps_are_those_of_an_elbo_with_that_weight():
    """Step 1 of a warm-up over 4 is a step with weight 1/4."""
    warm, fixed = pair(), pair()
    fit(*warm, DATA, steps=1, kl_warmup=4)
    fit(*fixed, DATA, elbo=AVAE_ELBO(kl_weight=0.25), steps=1)
    for one, other in zip(warm, fixed, strict=True):
        for name, tensor in one.state_dict().items():
            torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-6, atol=1e-8)


def test_a_resumed_run_goes_on_where_the_warm_up_was(tmp_path):
    whole, parts = pair(), pair()
    fit(*whole, DATA, steps=6, kl_warmup=5)
    fit(*parts, DATA, steps=3, kl_warmup=5, out=tmp_path / "run")
    rows = fit(*parts, DATA, steps=6, kl_warmup=5, out=tmp_path / "run", resume=True, log_every=1).history
    assert rows[-3]["kl_weight"] == pytest.approx(0.8)
    for one, other in zip(whole, parts, strict=True):
        assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    with pytest.raises(InputError, match="kl_warmup: the run to go on with has 5, got 2"):
        fit(*pair(), DATA, steps=7, kl_warmup=2, out=tmp_path / "run", resume=True)


def test_an_elbo_without_weights_is_refused():
    with pytest.raises(InputError, match=r"kl_warmup: expected an ELBO with kl_weight, such as AVAE_ELBO"):
        fit(*pair(), DATA, elbo=Trace_ELBO(), steps=1, kl_warmup=4)
    with pytest.raises(InputError, match="kl_warmup: expected an integer in"):
        fit(*pair(), DATA, steps=1, kl_warmup=-1)
