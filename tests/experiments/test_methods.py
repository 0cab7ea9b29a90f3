"""The table of methods: the parts that a line names are the parts that it makes."""

import pytest
import torch

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.methods import METHODS, build, builder_of
from pyro_avae.experiments.parts import LIKELIHOODS
from pyro_avae.guides import AmortizedGuide, AVAEGuide
from pyro_avae.models import VAE, ExtendedVAE
from pyro_avae.runs.settings import Settings
from pyro_avae.runs.triple import as_triple, import_builder

SMALL = {"hidden": (8,), "latent_dim": 3, "image_shape": (1, 4, 4)}


def x(count=6):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("method", "target", "guide", "sites"),
    [
        ("vae", VAE, AmortizedGuide, {"x", "z"}),
        ("beta-vae", VAE, AmortizedGuide, {"x", "z"}),
        ("avae", ExtendedVAE, AVAEGuide, {"x", "z", "z_aux"}),
    ],
)
def test_each_method_is_its_parts(method, target, guide, sites):
    made = build(settings_for({"method": method, **SMALL}))
    assert type(made.model) is target and type(made.guide) is guide
    assert set(made.elbo.terms(made.model, made.guide, x())) == sites


def test_no_method_goes_untested():
    assert set(METHODS) == {"vae", "beta-vae", "avae"}


@pytest.mark.parametrize("method", ["beta-vae", "avae"])
def test_beta_weights_the_kl_terms_and_nothing_else(method):
    settings = Settings(method=method, beta=2.5, num_views=2 if method == "avae" else 1, **SMALL)
    model, guide, elbo = build(settings)
    torch.manual_seed(1)
    weighted = elbo.terms(model, guide, x())
    torch.manual_seed(1)
    plain = AVAE_ELBO().terms(model, guide, x())
    for name, term in plain.items():
        torch.testing.assert_close(weighted[name], (1.0 if name == "x" else 2.5) * term)
    assert ("z_aux_2" in plain) == (method == "avae")


def test_settings_reach_their_parts():
    settings = Settings(method="avae", rho=-0.3, obs_variance=0.07, view="mean", gradient="cut", num_views=3, **SMALL)
    model, guide, _ = build(settings)
    assert model.coupling.rho == -0.3 and model.num_views == 3 and model.latent_dim == 3
    assert guide.view.gradient == "cut" and type(guide.view).__name__ == "DecoderMean"
    assert float(model.observe(torch.zeros(2, 3)).variance.flatten()[0].detach()) == pytest.approx(0.07)
    assert model.decode(torch.zeros(2, 3)).shape == (2, 1, 4, 4)


@pytest.mark.parametrize("likelihood", list(LIKELIHOODS))
@pytest.mark.parametrize("method", ["vae", "avae"])
def test_every_likelihood_gives_a_finite_loss_and_means_in_the_unit_interval(method, likelihood):
    model, guide, elbo = build(Settings(method=method, likelihood=likelihood, gradient="cut", **SMALL))
    data = (x() > 0.5).float() if likelihood == "bernoulli" else x()
    loss = elbo(model, guide)(data)
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    mean = model.decode(torch.randn(4, 3)).detach()
    assert bool(((mean >= 0) & (mean <= 1)).all())


def test_a_learned_variance_is_a_parameter():
    fixed, learned = (build(Settings(likelihood=name, **SMALL)).model for name in ("gaussian", "gaussian-learned"))
    assert len(list(learned.parameters())) == len(list(fixed.parameters())) + 1
    assert float(learned.likelihood.obs_variance.detach()) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "vea"}, "method: expected one of vae, beta-vae, avae or module:function, got 'vea'"),
        (
            {"likelihood": "cauchy"},
            "likelihood: expected one of gaussian, gaussian-learned, bernoulli, continuous-bern",
        ),
        ({"architecture": "conv"}, "architecture: expected one of mlp, got 'conv'"),
        ({"view": "twice"}, "view: expected one of"),
        ({"gradient": "around"}, "gradient: expected None, 'through_z', 'cut', got 'around'"),
        ({"rho": "natural"}, "rho: expected a number in (-1, 1) or 'learned', got 'natural'"),
        ({"method": "vae", "beta": 2.0}, "beta: expected 1, this method weights no term, got 2.0; use beta-vae"),
    ],
)
def test_settings_that_no_method_can_use(settings, message):
    with pytest.raises(InputError) as caught:
        build(Settings(**{**SMALL, **settings}))
    assert message in str(caught.value)


def test_defaults_depend_on_data_set_and_method():
    assert settings_for({"dataset": "color-mnist"}).steps == 102_000
    assert settings_for({"dataset": "color-digits"}).steps < 10_000
    assert settings_for({"dataset": "color-digits", "steps": 7, "lr": 0.5}).lr == 0.5
    assert settings_for({"method": "beta-vae"}).beta == 4.0
    assert settings_for({"method": "beta-vae", "beta": 1.5}).beta == 1.5


def test_builders_are_found_by_name():
    assert import_builder(builder_of("avae")) is build
    assert builder_of("my_module:build") == "my_module:build"
    with pytest.raises(InputError, match="method: expected one of"):
        builder_of("nonsense")


@pytest.mark.parametrize("made", [None, (1, 2), (torch.nn.ReLU(), torch.nn.ReLU(), "elbo"), "abc"])
def test_a_builder_has_to_return_a_triple(made):
    with pytest.raises(InputError, match=r"^my:build: expected it to return"):
        as_triple(made, what="my:build")
