"""Gradients of single images: those of a loop, of a formula, and of a batch when they are added up."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from pyro_avae import AVAE_ELBO
from pyro_avae.compilation.base_noise import NoiseSource
from pyro_avae.compilation.program import Program
from pyro_avae.compilation.trace import run_with_noise
from pyro_avae.consistency import CR_ELBO
from pyro_avae.errors import InputError
from pyro_avae.evaluation import PerSampleGradients
from pyro_avae.guides import AmortizedGuide, AVAEGuide, ConvEncoder, MLPEncoder
from pyro_avae.iwae import IWAE_ELBO
from pyro_avae.models import VAE, ConvDecoder, ExtendedVAE, MLPDecoder, bernoulli
from pyro_avae.transformations import RandomAffine
from pyro_avae.worst_case import WorstCase

SHAPE = (1, 4, 4)


def avae(**options):
    model = ExtendedVAE(MLPDecoder(2, SHAPE, hidden=[5]), latent_dim=2, rho=0.8, obs_variance=0.3).double()
    return model, AVAEGuide(MLPEncoder(SHAPE, 2, hidden=[5]), model, **options).double(), AVAE_ELBO()


def vae(elbo, **options):
    model = VAE(MLPDecoder(2, SHAPE, hidden=[5]), latent_dim=2, **options).double()
    return model, AmortizedGuide(MLPEncoder(SHAPE, 2, hidden=[5])).double(), elbo


def convolutional():
    decoder = ConvDecoder(2, (1, 8, 8), channels=(3, 2), normalization="batch")
    model = VAE(decoder, latent_dim=2, obs_variance=0.3).double()
    return (
        model,
        AmortizedGuide(ConvEncoder((1, 8, 8), 2, channels=(2, 3), normalization="batch")).double(),
        AVAE_ELBO(),
    )


PAIRS = {
    "avae": (avae, SHAPE),
    "smooth": (lambda: avae(view=WorstCase(epsilon=0.1, steps=2)), SHAPE),
    "iwae": (lambda: vae(IWAE_ELBO(num_particles=3), obs_variance=0.3), SHAPE),
    "bernoulli": (lambda: vae(AVAE_ELBO(weights={"z": 2.0}), likelihood=bernoulli), SHAPE),
    "cr-vae": (lambda: vae(CR_ELBO(transformation=RandomAffine(), weight=0.5), obs_variance=0.3), SHAPE),
    "conv": (convolutional, (1, 8, 8)),
}


def images(count, shape, *, dtype=torch.float64):
    return torch.rand(count, *shape, dtype=dtype).round(decimals=2)


@pytest.mark.parametrize("name", PAIRS)
def test_mapped_gradients_are_those_of_a_loop_over_the_pyro_programs(name):
    make, shape = PAIRS[name]
    model, guide, elbo = make()
    x = images(5, shape).round() if name == "bernoulli" else images(5, shape)
    for part in (model, guide):
        part.eval()
    of = PerSampleGradients(model, guide, elbo, x[0], draws=3)
    noise = of.noise(NoiseSource(3), range(5))
    found = of(x, noise)
    program = Program(elbo(model, guide), mean=True)
    parameters = [p.detach() for p in program.parameters.values()]
    for number in range(5):
        expected = run_with_noise(
            program, parameters, program.buffers, [n[number] for n in noise], x[number].expand(3, *shape)
        )
        gradient = torch.cat([g.flatten() for g in expected.gradients if g is not None])
        # float64, another order of summation
        torch.testing.assert_close(found.gradients[number], gradient, rtol=1e-8, atol=1e-8 * float(gradient.norm()))
        torch.testing.assert_close(found.loss[number], expected.loss, rtol=1e-10, atol=1e-10)
    assert of.size == found.gradients.shape[1] and (found.gradients.norm(dim=1) > 0).all()


def test_the_gradients_of_images_add_up_to_that_of_their_batch():
    model, guide, elbo = avae()
    x = images(6, SHAPE)
    of = PerSampleGradients(model, guide, elbo, x[0], draws=1)
    noise = of.noise(NoiseSource(0), range(6))
    program = Program(elbo(model, guide))
    whole = run_with_noise(program, list(program.parameters.values()), [], [n.squeeze(1) for n in noise], x)
    batch = torch.cat([g.flatten() for g in whole.gradients if g is not None])
    torch.testing.assert_close(of(x, noise).gradients.sum(0), batch, rtol=1e-10, atol=1e-10)


def test_a_bernoulli_decoder_has_the_gradient_of_its_formula():
    """-ELBO = BCE of the logits at z + KL, written out and differentiated by itself."""
    model, guide, elbo = vae(AVAE_ELBO(), likelihood=bernoulli)
    x = images(4, SHAPE).round()
    of = PerSampleGradients(model, guide, elbo, x[0], draws=2)
    (noise,) = drawn = of.noise(NoiseSource(1), range(4))
    found = of(x, drawn)
    for number in range(4):
        loc, scale = guide.encoder(x[number : number + 1])
        z = loc + scale * noise[number]
        pixels = binary_cross_entropy_with_logits(model.decoder(z), x[number].expand(2, *SHAPE), reduction="sum") / 2
        kl = (0.5 * (loc**2 + scale**2 - 1) - scale.log()).sum()
        expected = torch.autograd.grad(pixels + kl, [*model.parameters(), *guide.parameters()])
        torch.testing.assert_close(
            found.gradients[number], torch.cat([g.flatten() for g in expected]), rtol=1e-9, atol=1e-9
        )


def step_along(model, guide, gradient, size):
    with torch.no_grad():
        for parameter in {id(p): p for p in (*model.parameters(), *guide.parameters())}.values():
            part, gradient = gradient[: parameter.numel()], gradient[parameter.numel() :]
            parameter -= size * part.view_as(parameter)
    assert not gradient.numel()


def test_a_step_of_sgd_on_one_image_changes_the_loss_of_another_by_the_inner_product():
    """l(y; th) - l(y; th - eta g(x)) = eta <g(x), g(y)> + O(eta^2): a tenth of the step, a tenth of the error."""
    model, guide, elbo = vae(AVAE_ELBO(), obs_variance=0.3)
    x = images(2, SHAPE)
    of = PerSampleGradients(model, guide, elbo, x[0], draws=4)
    noise = of.noise(NoiseSource(0), range(2))
    before = of(x, noise)
    errors = []
    for eta in (1e-3, 1e-4, 1e-5):
        step_along(model, guide, before.gradients[0], eta)
        change = before.loss[1] - of(x, noise).loss[1]
        step_along(model, guide, before.gradients[0], -eta)
        errors.append(float((change / (eta * (before.gradients[0] @ before.gradients[1])) - 1).abs()))
    assert errors[0] < 0.3
    assert errors[1] == pytest.approx(errors[0] / 10, rel=0.3) and errors[2] == pytest.approx(errors[1] / 10, rel=0.3)


def of_the_mean(exact_pair, draws):
    """The gradient with respect to the mean of PPCA alone, the guide its exact posterior."""
    model, guide = exact_pair(6, 2)
    for part in (model, guide):
        part.requires_grad_(False)
    model.observation.decoder.bias.requires_grad_(True)
    x = model.observation.decoder.bias.detach() + torch.randn(5, 6, dtype=torch.float64)
    return model, guide, x, PerSampleGradients(model, guide, AVAE_ELBO(), x[0], draws=draws)


def covariance(model):
    weight = model.observation.decoder.weight.detach()
    return weight, weight @ weight.T + 0.3 * torch.eye(6, dtype=torch.float64)


def test_the_gradient_to_the_mean_is_that_of_the_evidence_where_the_posterior_is_exact(exact_pair):
    """Fisher's identity: grad_b log p(x) = C^-1 (x - b), so that TracIn is (x - b)^T C^-2 (y - b)."""
    model, _, x, of = of_the_mean(exact_pair, 2)
    _, c = covariance(model)
    half = torch.randn(5, 1, 2, dtype=torch.float64)
    found = of(x, [torch.cat([half, -half], 1)]).gradients  # noise of mean 0: the estimate is exact
    expected = torch.linalg.solve(c, (x - model.observation.decoder.bias.detach()).T).T
    torch.testing.assert_close(found, -expected, rtol=1e-12, atol=1e-12)
    inverse = torch.linalg.inv(c @ c)
    centred = x - model.observation.decoder.bias.detach()
    torch.testing.assert_close(found @ found.T, centred @ inverse @ centred.T, rtol=1e-11, atol=1e-11)


def test_the_square_of_one_estimate_is_biased_by_the_trace_and_two_halves_are_not(exact_pair):
    r"""E |mean of m gradients|^2 = |E g|^2 + tr Cov(g) / m, with Cov = W S W^T / nu^2."""
    m, repeats = 4, 4000
    model, guide, x, of = of_the_mean(exact_pair, m)
    weight, c = covariance(model)
    exact = float(torch.linalg.solve(c, x[0] - model.observation.decoder.bias.detach()).square().sum())
    tril = guide.posterior(x[:1]).scale_tril[0]
    trace = float((weight @ tril / 0.3).square().sum())
    one, other = (of(x[:1].expand(repeats, 6), of.noise(NoiseSource(s), range(repeats))).gradients for s in (0, 1))
    naive, halves = one.square().sum(1), (one * other).sum(1)
    for values, expected in ((naive, exact + trace / m), (halves, exact)):
        error = float(values.std()) / repeats**0.5
        assert abs(float(values.mean()) - expected) < 4 * error  # four Monte Carlo standard errors
        assert error < trace / m / 20  # small enough to tell the two apart


def test_noise_of_an_image_does_not_depend_on_the_others():
    model, guide, elbo = avae()
    of = PerSampleGradients(model, guide, elbo, images(1, SHAPE)[0], draws=2)
    together = of.noise(NoiseSource(0), range(3, 9))
    apart = of.noise(NoiseSource(0), [5])
    assert len(together) == len(of.specs) > 1
    for one, other in zip(together, apart, strict=True):
        assert torch.equal(one[2], other[0]) and not torch.equal(one[1], one[2])


def test_parameters_put_in_later_are_seen_frozen_ones_too():
    model, guide, elbo = avae()
    guide.requires_grad_(False)
    x = images(1, SHAPE)
    of = PerSampleGradients(model, guide, elbo, x[0], draws=2)
    noise = of.noise(NoiseSource(0), range(1))
    before = of(x, noise)
    encoder = next(p for p in guide.parameters() if not p.requires_grad and p.dim() > 1)
    with torch.no_grad():
        encoder.mul_(3.0)
    changed = of(x, noise)
    fresh = PerSampleGradients(model, guide, elbo, x[0], draws=2)(x, noise)
    assert not torch.equal(before.gradients, changed.gradients)
    torch.testing.assert_close(changed.gradients, fresh.gradients, rtol=1e-12, atol=1e-12)


def test_a_pair_without_parameters_is_refused():
    model, guide, elbo = avae()
    for part in (model, guide):
        part.requires_grad_(False)
    with pytest.raises(InputError, match=r"^model and guide: expected parameters that require grad"):
        PerSampleGradients(model, guide, elbo, images(1, SHAPE)[0], draws=2)


def test_a_parameter_that_the_loss_does_not_depend_on_has_no_part():
    model, guide, elbo = avae()
    model.unused = nn.Parameter(torch.zeros(7, dtype=torch.float64))
    of = PerSampleGradients(model, guide, elbo, images(1, SHAPE)[0], draws=2)
    assert not any("unused" in name for name in of.names)
    assert of.size == sum(p.numel() for n, p in of._program.parameters.items() if n in of.names)


@pytest.mark.cuda
def test_a_gpu_computes_what_the_cpu_computes():
    model, guide, elbo = avae()
    x = images(4, SHAPE)
    of = PerSampleGradients(model, guide, elbo, x[0], draws=3)
    noise = of.noise(NoiseSource(0), range(4))
    expected = of(x, noise)
    model.cuda()
    guide.cuda()
    there = PerSampleGradients(model, guide, elbo, x[0].cuda(), draws=3)
    found = there(x.cuda(), [one.cuda() for one in noise])
    torch.testing.assert_close(found.gradients.cpu(), expected.gradients, rtol=1e-9, atol=1e-9)
