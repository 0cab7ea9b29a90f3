"""The table of methods: the parts that a line names are the parts that it makes."""

import pytest
import torch

from pyro_avae.elbo import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.experiments.defaults import settings_for
from pyro_avae.experiments.methods import METHODS, build, builder_of
from pyro_avae.experiments.parts import LIKELIHOODS
from pyro_avae.guides import AmortizedGuide, AVAEGuide, SelfSupervisedGuide
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.models import VAE, ExtendedVAE, SelfSupervisedVAE
from pyro_avae.runs.settings import Settings, setting_infos
from pyro_avae.runs.triple import as_triple, import_builder

SMALL = {"hidden": (8,), "latent_dim": 3, "image_shape": (1, 4, 4)}


def x(count=6):
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("method", "target", "guide", "sites"),
    [
        ("vae", VAE, AmortizedGuide, {"x", "z"}),
        ("iwae", VAE, AmortizedGuide, {"x", "z", "importance_weights"}),
        ("beta-vae", VAE, AmortizedGuide, {"x", "z"}),
        ("cr-vae", VAE, AmortizedGuide, {"x", "z", "consistency"}),
        ("noise-vae", VAE, AmortizedGuide, {"x", "z"}),
        ("avae", ExtendedVAE, AVAEGuide, {"x", "z", "z_aux"}),
        ("avae-mean", ExtendedVAE, AVAEGuide, {"x", "z", "z_aux"}),
        ("avae-ss", SelfSupervisedVAE, SelfSupervisedGuide, {"z", "z_aux"}),
        ("se", ExtendedVAE, AVAEGuide, {"x", "z", "z_smooth"}),
        ("se-avae", ExtendedVAE, AVAEGuide, {"x", "z", "z_aux", "z_smooth"}),
    ],
)
def test_each_method_is_its_parts(method, target, guide, sites):
    made = build(settings_for({"method": method, **SMALL}))
    assert type(made.model) is target and type(made.guide) is guide
    assert set(made.elbo.terms(made.model, made.guide, x())) == sites


def test_samples_and_their_gradient_reach_the_bound():
    _, _, elbo = build(settings_for({"method": "iwae", "num_particles": 7, "dreg": True, **SMALL}))
    assert isinstance(elbo, IWAE_ELBO) and elbo.num_particles == 7 and elbo.dreg
    assert settings_for({"method": "iwae"}).num_particles == 50
    for method in METHODS.keys() - {"iwae"}:
        model, guide, elbo = build(settings_for({"method": method, "num_particles": 3, **SMALL}))
        assert elbo.num_particles == 3 and elbo.vectorize_particles
        assert elbo.differentiable_loss(model, guide, x()).isfinite()


def test_changes_and_their_weight_reach_the_consistent_bound():
    common = {"method": "cr-vae", "transformation": "affine-large", "beta": 3.0, **SMALL}
    _, _, elbo = build(settings_for({**common, "likelihood": "bernoulli"}))
    assert elbo.transformation.degrees == 30 and elbo.transformation.interpolation == "nearest"
    assert elbo.penalties["consistency"].weight == 0.1 and elbo.weights == {"z": 3.0}
    _, _, elbo = build(settings_for({**common, "consistency_weight": 0.7}))
    assert elbo.transformation.interpolation == "bilinear" and elbo.penalties["consistency"].weight == 0.7
    with pytest.raises(InputError, match="transformation: expected one of affine, affine-large, got 'x'"):
        build(settings_for({**common, "transformation": "x"}))


@pytest.mark.parametrize("method", ["vae", "iwae", "noise-vae", "avae", "avae-mean", "se", "se-avae"])
def test_z_moves_on_after_the_encoder_where_that_is_asked_for(method):
    options = {"guide": "hamiltonian", "leapfrog_steps": 2, "tempering": "free", "num_particles": 1}
    model, guide, elbo = build(settings_for({"method": method, **options, **SMALL}))
    assert guide.dynamics.steps == 2 and guide.dynamics.tempering == "free" and guide.dynamics.model is model
    terms = elbo.terms(model, guide, x())
    assert {"x", "z", "z_start", "momentum", "momentum_end"} <= set(terms)
    assert all(bool(term.isfinite()) for term in terms.values())


def test_dynamics_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match=r"beta: expected 1 with --guide hamiltonian, got 4\.0"):
        build(settings_for({"method": "beta-vae", "guide": "hamiltonian", **SMALL}))
    with pytest.raises(InputError, match="coupling: expected factorised with --guide hamiltonian, got optimal"):
        build(settings_for({"method": "se", "coupling": "optimal", "guide": "hamiltonian", **SMALL}))
    with pytest.raises(InputError, match="guide: expected one of gaussian, hamiltonian, got 'x'"):
        build(settings_for({"method": "vae", "guide": "x", **SMALL}))


def test_no_method_goes_untested():
    assert set(METHODS) == {
        "vae",
        "iwae",
        "beta-vae",
        "noise-vae",
        "cr-vae",
        "avae",
        "avae-mean",
        "avae-ss",
        "se",
        "se-avae",
    }


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"vae", "iwae", "cr-vae"}))
def test_weights_reach_their_terms_and_nothing_else(method):
    further = {"avae", "avae-mean", "avae-ss", "se", "se-avae"}
    options = {"num_views": 2, "consistency_weight": 0.5} if method in further else {}
    model, guide, elbo = build(Settings(method=method, beta=2.5, **options, **SMALL))
    torch.manual_seed(1)
    weighted = elbo.terms(model, guide, x())
    torch.manual_seed(1)
    plain = AVAE_ELBO().terms(model, guide, x())
    for name, term in plain.items():
        torch.testing.assert_close(weighted[name], {"x": 1.0, "z": 2.5}.get(name, 0.5) * term)
    assert any(name.endswith("_2") for name in plain) == (method in further)


def test_a_method_refuses_what_it_has_no_use_for_and_knows_the_names():
    names = set(setting_infos())
    for method in METHODS.values():
        assert set(method.unused) <= names and set(method.defaults) <= names
        assert not set(method.unused) & set(method.defaults)


@pytest.mark.parametrize(
    ("settings", "coupling", "joint"),
    [
        ({"coupling": "factorised"}, "FixedRho", "FactorisedJoint"),
        ({"coupling": "optimal"}, "FixedRho", "OptimalJoint"),
        ({"coupling": "pairwise", "gamma": 3.0}, "PairwisePrior", "OptimalJoint"),
        ({"coupling": "factorised", "rho": "natural"}, "NaturalRho", "FactorisedJoint"),
        ({"coupling": "optimal", "rho": "learned-per-dimension"}, "LearnedRho", "OptimalJoint"),
    ],
)
def test_the_smooth_encoder_takes_its_coupling_by_name(settings, coupling, joint):
    model, guide, _ = build(Settings(method="se", epsilon=0.2, attack_steps=3, **settings, **SMALL))
    assert type(model.coupling).__name__ == coupling and type(guide.joints["smooth"]).__name__ == joint
    assert guide.views["smooth"].epsilon == 0.2 and guide.views["smooth"].steps == 3
    assert getattr(model.coupling, "gamma", 3.0) == 3.0


def test_settings_reach_their_parts():
    settings = Settings(method="avae", rho=-0.3, obs_variance=0.07, view="mean", gradient="cut", num_views=3, **SMALL)
    model, guide, _ = build(settings)
    assert model.coupling.rho == -0.3 and model.num_views == 3 and model.latent_dim == 3
    assert guide.views["aux"].gradient == "cut" and type(guide.views["aux"]).__name__ == "DecoderMean"
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
        (
            {"method": "vea"},
            "method: expected one of vae, iwae, beta-vae, noise-vae, cr-vae, avae, avae-mean, avae-ss, se, se-avae or",
        ),
        (
            {"likelihood": "cauchy"},
            "likelihood: expected one of gaussian, gaussian-learned, bernoulli, continuous-bern",
        ),
        ({"architecture": "tree"}, "architecture: expected one of mlp, conv, conv-small, got 'tree'"),
        ({"method": "se", "coupling": "tight"}, "coupling: expected one of factorised, optimal, pairwise, got 'tight'"),
        (
            {"method": "se-avae", "coupling": "pairwise"},
            "coupling: the pairwise prior is another prior of z than the AVAE's; se-avae takes factorised or optimal",
        ),
        ({"view": "twice"}, "view: expected one of"),
        ({"gradient": "around"}, "gradient: expected None, 'through_z', 'cut', got 'around'"),
        (
            {"rho": "best"},
            "rho: expected a number in (-1, 1) or 'learned' or 'learned-per-dimension' or 'natural', got",
        ),
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
