"""The pair as two modules: what it holds, copies, saves, logs and refuses."""

import copy
import logging
import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_avae import AVAE_ELBO
from pyro_avae.auxiliary_draw import auxiliary
from pyro_avae.coupling import LearnedRho, MatrixRho
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE, Gaussian, bernoulli
from pyro_avae.views import DecoderSample

F64 = torch.float64
#: Some tens of roundings in float64, times condition numbers of the order of 10.
ROUNDING = 1e3 * torch.finfo(F64).eps


def build(*, learned_nu=False, seed=0, view="sample", gradient=None, likelihood=None, **options):
    torch.manual_seed(seed)
    likelihood = likelihood or Gaussian(obs_variance=0.5, learned=learned_nu)
    options.setdefault("rho", 0.8)
    model = ExtendedVAE(nn.Linear(3, 4), latent_dim=3, likelihood=likelihood, **options).double()
    guide = AVAEGuide(LinearEncoder(4, 3).double(), model, view=view, gradient=gradient)
    return model, guide, torch.rand(2, 4, dtype=F64).round()


def encode_noisy_decoding(model: ExtendedVAE, guide: AVAEGuide, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z and the location and scale of its re-encoding, from the noise of the current seed."""
    loc, scale = guide.encode(x)
    z = loc + scale * torch.randn(loc.shape, dtype=F64)
    return z, *guide.encode(model.decode(z) + math.sqrt(0.5) * torch.randn(x.shape, dtype=F64))


def test_rho_zero_is_the_vae_plus_a_kl_of_the_re_encoding():
    model, guide, x = build(rho=0.0)
    torch.manual_seed(5)
    loss = AVAE_ELBO()(model, guide)(x)
    plain = VAE(model.decoder, latent_dim=3, obs_variance=0.5)
    torch.manual_seed(5)
    vae = AVAE_ELBO()(plain, AmortizedGuide(guide.encoder))(x)
    torch.manual_seed(5)
    _, loc, scale = encode_noisy_decoding(model, guide, x)
    extra = 0.5 * (loc**2 + scale**2 - 1 - 2 * scale.log()).sum()
    torch.testing.assert_close(loss, vae + extra, rtol=ROUNDING, atol=ROUNDING)
    assert bool(extra > 0.01)


def test_a_matrix_coupling_has_its_closed_form():
    generator = torch.Generator().manual_seed(3)
    matrix = 0.3 * torch.randn(3, 3, dtype=F64, generator=generator)
    model, guide, x = build(rho=MatrixRho(matrix))
    torch.manual_seed(7)
    term = AVAE_ELBO().terms(model, guide, x)["z_aux"]
    torch.manual_seed(7)
    z, loc, scale = encode_noisy_decoding(model, guide, x)
    covariance = torch.eye(3, dtype=F64) - matrix @ matrix.T
    precision = covariance.inverse()
    gap = loc - z @ matrix.T
    kl = 0.5 * (
        (scale**2 * precision.diagonal()).sum(-1) + ((gap @ precision) * gap).sum(-1) - 3 + covariance.logdet()
    ) - scale.log().sum(-1)
    torch.testing.assert_close(-term, kl.sum(), rtol=ROUNDING, atol=ROUNDING)


def test_a_users_own_view_works_end_to_end():
    class Mirrored:
        def __call__(self, name, x, z, *, decode, encode):
            return auxiliary(name, dist.Delta(x.flip(-1).expand(*z.shape[:-1], -1), event_dim=1))

    model, plain, x = build()
    guide = AVAEGuide(plain.encoder, model, view=Mirrored())
    torch.manual_seed(2)
    terms = AVAE_ELBO(num_particles=2, vectorize_particles=True).terms(model, guide, x)
    torch.manual_seed(2)
    loc, scale = guide.encode(x)
    z = loc + scale * torch.randn(2, *loc.shape, dtype=F64)
    loc, scale = guide.encode(x.flip(-1))
    kl = 0.5 * ((scale**2 + (loc - 0.8 * z) ** 2) / 0.36 - 1 - 2 * scale.log() + math.log(0.36))
    torch.testing.assert_close(-terms["z_aux"], kl.sum() / 2, rtol=ROUNDING, atol=ROUNDING)


def test_the_guide_does_not_register_its_model():
    model, guide, _ = build(learned_nu=True, rho=LearnedRho(latent_dim=3))
    module = AVAE_ELBO()(model, guide)
    trainable = {id(p) for p in [*model.parameters(), *guide.parameters()]}
    assert {id(model.likelihood.raw), id(model.coupling.raw)} <= trainable
    assert [*map(id, module.parameters())] == [*dict.fromkeys(map(id, module.parameters()))]
    assert {*map(id, module.parameters())} == trainable
    keys = list(module.state_dict())
    assert sum(key.endswith("decoder.weight") for key in keys) == 1
    assert not any("decoder" in key for key in guide.state_dict())
    assert guide.model is model


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_pair_copied_together_stays_tied_and_apart_from_the_original(duplicate):
    model, guide, x = build(learned_nu=True, num_views=2)
    twin, twin_guide = duplicate((model, guide))
    assert twin_guide.model is twin
    torch.manual_seed(6)
    before = AVAE_ELBO()(model, guide)(x)
    with torch.no_grad():
        for parameter in [*twin.parameters(), *twin_guide.parameters()]:
            parameter += 0.1
    torch.manual_seed(6)
    torch.testing.assert_close(AVAE_ELBO()(model, guide)(x), before, rtol=0, atol=0)
    torch.manual_seed(6)
    assert bool((AVAE_ELBO()(twin, twin_guide)(x) - before).abs() > 1e-3)


def test_a_state_dict_restores_the_loss():
    options = {"rho": (0.5, 0.1, -0.2), "learned_nu": True}
    model, guide, x = build(**options)
    other, other_guide, _ = build(**options, seed=9)
    other.load_state_dict(model.state_dict())
    other_guide.load_state_dict(guide.state_dict())
    losses = []
    for pair in ((model, guide), (other, other_guide)):
        torch.manual_seed(8)
        losses.append(AVAE_ELBO()(*pair)(x))
    torch.testing.assert_close(*losses, rtol=0, atol=0)


def test_bernoulli_without_a_choice_takes_cut_and_says_so_once(caplog):
    model, guide, x = build(likelihood=bernoulli, num_views=2)
    with caplog.at_level(logging.INFO, logger="pyro_avae"):
        for _ in range(3):
            AVAE_ELBO()(model, guide)(x)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "'x_aux'" in messages[0]
    assert "Bernoulli" in messages[0]
    assert "gradient='cut'" in messages[0]


@pytest.mark.parametrize("view", ["sample", "mean"])
@pytest.mark.parametrize("gradient", [None, "through_z", "cut"])
def test_a_gaussian_pair_logs_nothing(view, gradient, caplog):
    model, guide, x = build(view=view, gradient=gradient)
    AVAE_ELBO()(model, guide)(x)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": "median"}, r"view: expected one of \['mean', 'sample'\] or a View object, got 'median'"),
        ({"view": 3}, r"view: expected one of .* got 3"),
        ({"gradient": "both"}, "gradient: expected None, 'through_z', 'cut', got 'both'"),
        ({"view": DecoderSample(), "gradient": "cut"}, "gradient: belongs to the view"),
    ],
)
def test_options_that_do_not_exist_are_refused(options, message):
    model, guide, _ = build()
    with pytest.raises(InputError, match=message):
        AVAEGuide(guide.encoder, model, **options)


def test_a_model_that_is_no_extended_target_is_refused_in_one_line():
    _, guide, _ = build()
    plain = VAE(nn.Linear(3, 4), latent_dim=3)
    with pytest.raises(InputError, match=r"\Amodel: expected an extended target .* VAE has no 'num_views'\Z"):
        AVAEGuide(guide.encoder, plain)
