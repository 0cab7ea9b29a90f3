"""The lossy decoder and the distribution that it makes."""

import copy
import itertools
import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_avae import AVAE_ELBO, compile_step
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, MLPEncoder
from pyro_avae.models import (
    VAE,
    ExtendedVAE,
    FlowPrior,
    Gaussian,
    LogisticMixture,
    LossyDecoder,
    MLPDecoder,
    bernoulli,
)
from pyro_avae.models.autoregressive import Autoregressive
from pyro_avae.penalties import JacobianL1

F64 = torch.float64


def make_decoder(shape, *, kernels=((3, 2),), likelihood=bernoulli, outputs=1, output=None, seed=0):
    torch.manual_seed(seed)
    trunk = MLPDecoder(2, (4, *shape[1:]), hidden=[8], output=None)
    return LossyDecoder(
        trunk, shape, likelihood=likelihood, kernels=kernels, channels=8, blocks=1, outputs=outputs, output=output
    )


@pytest.mark.parametrize("kernels", [((3, 2),), ((3, 1), (3, 1)), ((4, 1),)])
def test_the_probabilities_of_all_images_sum_to_one(kernels):
    decoder = make_decoder((1, 2, 3), kernels=kernels).double()
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)), dtype=F64).reshape(-1, 1, 2, 3)
    z = torch.randn(1, 2, dtype=F64)
    p = Autoregressive(decoder, bernoulli, z)
    assert float(p.log_prob(images).exp().sum().detach()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kernels", [((3, 2),), ((4, 2),), ((3, 1), (3, 1))])
@pytest.mark.parametrize("at", [(0, 0), (0, 5), (3, 0), (4, 3), (5, 5)])
def test_a_pixel_has_no_derivative_outside_its_window(kernels, at):
    decoder = make_decoder((1, 6, 6), kernels=kernels).double()
    z, x = torch.randn(1, 2, dtype=F64), torch.rand(1, 1, 6, 6, dtype=F64, requires_grad=True)
    (grad,) = torch.autograd.grad(decoder(z, x)[0, 0, at[0], at[1]], x)
    above, left, right = decoder.receptive_field
    for i, j in itertools.product(range(6), repeat=2):
        up, along = at[0] - i, j - at[1]
        before = (1 <= up <= above and -left <= along <= right) or (up == 0 and -left <= along < 0)
        if not before:
            assert grad[0, 0, i, j] == 0
        elif len(kernels) == 1:
            assert grad[0, 0, i, j] != 0


def test_a_sample_has_the_law_that_its_density_says():
    """Frequencies of all 16 images of 2x2 pixels against exp(log_prob), by the chi-squared statistic."""
    decoder = make_decoder((1, 2, 2))
    with torch.no_grad():  # so that pixels depend on each other well
        decoder.last.weight.mul_(4)
    p = Autoregressive(decoder, bernoulli, torch.randn(2))
    images = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(-1, 1, 2, 2)
    expected = p.log_prob(images).exp().detach()
    draws = p.sample((8000,))
    places = (draws.flatten(1) @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    counts = torch.bincount(places, minlength=16)
    chi = ((counts - 8000 * expected).square() / (8000 * expected)).sum()
    assert float(chi) < 15 + 5 * math.sqrt(30)  # 15 degrees of freedom, 5 standard deviations


@pytest.mark.parametrize("kernels", [((3, 2),), ((3, 1), (3, 1), (3, 1))])
def test_sampling_on_windows_is_sampling_on_whole_images(kernels):
    """Each pixel of a sample is what the whole image's parameters at that pixel give, with the same noise."""
    decoder = make_decoder((2, 5, 4), kernels=kernels, likelihood=Gaussian(obs_variance=1e-12)).double()
    z = torch.randn(3, 2, dtype=F64)
    x = decoder.sample(z)
    assert (x - decoder(z, x)).abs().max() < 1e-4  # a variance of 1e-12: every pixel is its own mean
    assert x.std() > 1e-2


def test_particles_and_batches_broadcast():
    decoder = make_decoder((1, 3, 3)).double()
    p = Autoregressive(decoder, bernoulli, torch.randn(4, 5, 2, dtype=F64))
    x = torch.rand(5, 1, 3, 3, dtype=F64).round()
    assert p.log_prob(x).shape == (4, 5)
    single = Autoregressive(decoder, bernoulli, p._z[2, 3]).log_prob(x[3])
    assert abs(float((p.log_prob(x)[2, 3] - single).detach())) < 1e-12
    assert p.sample((2,)).shape == (2, 4, 5, 1, 3, 3)
    assert p.expand((6, 4, 5)).batch_shape == (6, 4, 5)
    assert p.conditional_mean(x).shape == (4, 5, 1, 3, 3)


def test_held_constant_has_gradients_to_z_alone():
    model = VAE(make_decoder((1, 3, 3)), latent_dim=2, likelihood=bernoulli)
    z, x = torch.randn(4, 2, requires_grad=True), torch.rand(4, 1, 3, 3).round()
    model.observe_constant(z).log_prob(x).sum().backward()
    assert z.grad is not None and z.grad.abs().max() > 0
    assert all(p.grad is None for p in model.parameters())
    model.observe(z).log_prob(x).sum().backward()
    # All but the image's first pixel's zero padding: each has a gradient.
    assert all(p.grad is not None for p in model.parameters())


def test_a_learned_likelihood_is_registered_once():
    likelihood = Gaussian(obs_variance=0.1, learned=True)
    model = VAE(make_decoder((1, 3, 3), likelihood=likelihood), latent_dim=2, likelihood=likelihood)
    names = [name for name in model.state_dict() if name.endswith("raw")]
    assert names == ["observation.decoder.likelihood.raw"]
    twin = copy.deepcopy(model)
    assert twin.likelihood is twin.decoder.likelihood is not likelihood


def test_decode_is_a_sample_and_the_mean_a_refusal():
    model = VAE(make_decoder((1, 3, 3)), latent_dim=2, likelihood=bernoulli)
    decoded = model.decode(torch.randn(4, 2))
    assert decoded.shape == (4, 1, 3, 3) and set(decoded.unique().tolist()) <= {0.0, 1.0}
    extended = ExtendedVAE(make_decoder((1, 3, 3)), latent_dim=2, likelihood=bernoulli)
    guide = AVAEGuide(MLPEncoder((1, 3, 3), 2, hidden=[8]), extended, view="mean")
    with pytest.raises(InputError, match="Autoregressive likelihood has no mean"):
        guide(torch.rand(2, 1, 3, 3).round())


def make_pair(*, extended=True, prior=None, shape=(1, 4, 4), **options):
    decoder = make_decoder(shape)
    if not extended:
        model = VAE(decoder, latent_dim=2, likelihood=bernoulli, prior=prior)
        return model, AmortizedGuide(MLPEncoder(shape, 2, hidden=[8]))
    model = ExtendedVAE(decoder, latent_dim=2, likelihood=bernoulli, rho=0.9, prior=prior)
    return model, AVAEGuide(MLPEncoder(shape, 2, hidden=[8]), model, **options)


@pytest.mark.parametrize("vectorize", [False, True])
def test_the_avae_trains_it_with_cut_views(vectorize):
    model, guide = make_pair()
    x = torch.rand(6, 1, 4, 4).round()
    elbo = AVAE_ELBO(num_particles=2, vectorize_particles=vectorize)
    terms = elbo.terms(model, guide, x)
    assert sorted(terms) == ["x", "z", "z_aux"]
    AVAE_ELBO()(model, guide)(x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (*model.parameters(), *guide.parameters()))
    # theta held constant, sample cut: the consistency term has no gradient to the decoder.
    consistency = AVAE_ELBO().terms(model, guide, x)["z_aux"]
    grads = torch.autograd.grad(consistency, list(model.parameters()), allow_unused=True)
    assert all(grad is None for grad in grads)
    encoder = torch.autograd.grad(AVAE_ELBO().terms(model, guide, x)["z_aux"], list(guide.parameters()))
    assert all(grad.abs().max() > 0 for grad in encoder)


def test_svi_of_pyro_trains_it():
    model, guide = make_pair(extended=False)
    x = torch.rand(6, 1, 4, 4).round()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), loss=Trace_ELBO())
    first = [svi.step(x) for _ in range(3)]
    last = [svi.step(x) for _ in range(60)][-3:]
    assert sum(last) < sum(first)


@pytest.mark.parametrize("prior", [False, True])
def test_without_views_its_step_compiles_and_with_them_says_why_not(prior):
    x = torch.rand(4, 1, 4, 4).round()
    model, guide = make_pair(extended=False, prior=FlowPrior(2, steps=2, hidden=[8]) if prior else None)
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], 1e-3)
    step = compile_step(AVAE_ELBO()(model, guide), optimizer, x)
    assert step(x).isfinite()
    model, guide = make_pair()
    assert guide.sequential
    with pytest.raises(InputError, match="one pixel after another"):
        compile_step(AVAE_ELBO()(model, guide), torch.optim.Adam(guide.parameters(), 1e-3), x)


def test_the_jacobian_penalty_takes_each_pixel_given_those_before():
    """Against autograd of the conditional means at the data."""
    model, guide = make_pair(extended=False)
    model, guide = model.double(), guide.double()
    x = torch.rand(3, 1, 4, 4, dtype=F64).round()
    terms = AVAE_ELBO(penalties={"l1": JacobianL1(0.5)})
    torch.manual_seed(3)
    found = terms.terms(model, guide, x)["l1"]
    torch.manual_seed(3)
    z = guide.posterior(x).rsample().detach()
    rows = [
        torch.autograd.functional.jacobian(lambda at, row=row: model.conditional_mean(at[None], x[row][None]), z[row])
        for row in range(3)
    ]
    assert float(-found.detach()) == pytest.approx(0.5 * sum(float(row.abs().sum()) for row in rows), rel=1e-10)
    assert any(grad is not None for grad in torch.autograd.grad(found, list(model.parameters()), allow_unused=True))


def test_a_mixture_of_logistics_draws_levels():
    likelihood = LogisticMixture(components=2, levels=4)
    decoder = make_decoder((3, 4, 4), likelihood=likelihood, outputs=likelihood.outputs)
    model = VAE(decoder, latent_dim=2, likelihood=likelihood)
    x = model.observe(torch.randn(5, 2)).sample()
    assert x.shape == (5, 3, 4, 4)
    assert torch.equal((3 * x).round() / 3, x)
    assert model.observe(torch.randn(5, 2)).log_prob(x).shape == (5,)


@pytest.mark.parametrize(
    "options, message",
    [({"event_shape": (4, 4)}, "event_shape: expected"), ({"kernels": []}, "kernels: expected at least one")],
)
def test_what_it_cannot_be_made_of_is_refused(options, message):
    shape = {"event_shape": (1, 4, 4), **options}
    with pytest.raises(InputError, match=message):
        LossyDecoder(nn.Identity(), likelihood=bernoulli, **shape)


def test_values_outside_of_the_support_are_named():
    model = VAE(make_decoder((1, 3, 3)), latent_dim=2, likelihood=bernoulli)
    with pytest.raises(InputError, match="outside the support of the Autoregressive likelihood"):
        model(torch.full((2, 1, 3, 3), 0.5))
