"""Tensors that fit nothing, given to everything that takes one: one line that says what was expected, and what came."""

import re
import warnings

import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.batching import apply_batched
from pyro_avae.chain import iterated_reconstructions, run_chain
from pyro_avae.data import ImageData, Split
from pyro_avae.errors import InputError
from pyro_avae.evaluation import evaluate
from pyro_avae.guides import AVAEGuide, ConvEncoder, LinearEncoder, MLPEncoder
from pyro_avae.linear_gaussian import exact_bound, verify_bound
from pyro_avae.models import (
    ConvDecoder,
    ExtendedVAE,
    Gaussian,
    LogisticMixture,
    MLPDecoder,
    bernoulli,
    categorical,
    continuous_bernoulli,
)
from pyro_avae.training import fit, fit_seeds

SHAPE = (1, 8, 8)
GREY = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(0))


def spoiled(value):
    images = GREY.clone()
    images[4, 0, 3, 3] = value
    return images


#: What is no batch of images, for any likelihood.
NO_IMAGES = {
    "short": GREY[:, :, :6],
    "flat": GREY.flatten(1),
    "one number": GREY[0, 0, 0, 0],
    "one image": GREY[0],
    "a dimension more": GREY[None],
    "three channels": GREY.expand(6, 3, 8, 8),
    "no images": GREY[:0],
    "no pixels": GREY[:, :, :0],
    "long": GREY.long(),
    "bytes": (255 * GREY).byte(),
    "bool": GREY > 0.5,
    "complex": GREY.to(torch.complex64),
    "half": GREY.half(),
    "double": GREY.double(),
    "NaN": spoiled(float("nan")),
    "inf": spoiled(float("inf")),
    "sparse": GREY.to_sparse(),
    "meta": GREY.to("meta"),
    "array": GREY.numpy(),
    "list": GREY.tolist(),
    "None": None,
    "text": "images",
}

MLP = (lambda: MLPDecoder(3, SHAPE, hidden=[8]), lambda: MLPEncoder(SHAPE, 3, hidden=[8]))
CONV = (lambda: ConvDecoder(3, SHAPE), lambda: ConvEncoder(SHAPE, 3))


def make_pair(networks=MLP, likelihood=None):
    torch.manual_seed(0)
    decoder, encoder = (make() for make in networks)
    model = ExtendedVAE(decoder, latent_dim=3, likelihood=likelihood or Gaussian())
    return model, AVAEGuide(encoder, model, gradient="cut")


#: What a batch is given to. NaN is not looked for where a device would be waited for.
USES = {
    "fit": lambda model, guide, x: fit(model, guide, x, steps=1, batch_size=4),
    "fit_seeds": lambda model, guide, x: fit_seeds([(model, guide)], x, seeds=[0], steps=1, batch_size=4),
    "loss": lambda model, guide, x: AVAE_ELBO()(model, guide)(x),
    "terms": lambda model, guide, x: AVAE_ELBO().terms(model, guide, x),
    "encode": lambda model, guide, x: guide.encode(x),
    "run_chain": lambda model, guide, x: run_chain(model, guide, start=x, num_draws=2),
    "evaluate": lambda model, guide, x: evaluate(model, guide, x, epsilons=[0.0]),
}
ALLOWED = {("encode", "NaN"), ("encode", "inf"), ("encode", "no images"), ("run_chain", "None")}


def refusal(call):
    with warnings.catch_warnings(record=True) as said, pytest.raises(InputError) as caught:
        warnings.simplefilter("always")
        call()
    assert len(str(caught.value).splitlines()) == 1, str(caught.value)
    assert "expected" in str(caught.value) or "but" in str(caught.value) or "outside" in str(caught.value)
    assert not said
    return str(caught.value)


@pytest.mark.parametrize("networks", [MLP, CONV], ids=["mlp", "conv"])
@pytest.mark.parametrize("use", USES)
def test_what_is_no_batch_of_images_is_refused_in_one_line(use, networks):
    model, guide = make_pair(networks)
    USES[use](model, guide, GREY) if use != "evaluate" else None
    for name, x in NO_IMAGES.items():
        if (use, name) not in ALLOWED:
            refusal(lambda x=x: USES[use](model, guide, x))


@pytest.mark.parametrize("networks", [MLP, CONV], ids=["mlp", "conv"])
def test_what_is_no_latent_is_refused_in_one_line(networks):
    model, _ = make_pair(networks)
    z = torch.zeros(2, 3)
    assert model.decode(z).shape == (2, *SHAPE)
    wrong = [
        z[:, :2],
        z[0, 0],
        z.long(),
        z.half(),
        z.to(torch.complex64),
        z.to_sparse(),
        z.to("meta"),
        None,
        [[0.0] * 3],
    ]
    for value in wrong:
        refusal(lambda value=value: model.decode(value))
    with pytest.raises(ValueError, match="invalid values"):  # torch's own: decoding looks at no number
        model.decode(z * float("nan"))


LIKELIHOODS = {
    "bernoulli": (MLP, bernoulli, (GREY > 0.5).float(), [GREY]),
    "continuous": (MLP, continuous_bernoulli, GREY, []),
    "categorical": ((lambda: MLPDecoder(3, (256, 8, 8), hidden=[8], output=None), MLP[1]), categorical, GREY, []),
    "mixture": (
        (lambda: MLPDecoder(3, (LogisticMixture().outputs, 8, 8), hidden=[8], output=None), MLP[1]),
        LogisticMixture(),
        GREY,
        [],
    ),
}


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_one_pixel_beyond_the_support_is_found_before_the_first_step(name):
    """In whichever image: with a batch of one, hardly ever that of the first step."""
    networks, likelihood, right, wrong = LIKELIHOODS[name]
    model, guide = make_pair(networks, likelihood)
    before = [parameter.clone() for parameter in guide.parameters()]
    for value in (-1e-3, 1.001, 255.0):
        wrong = [*wrong, torch.where(torch.arange(6)[:, None, None, None] == 4, value, right)]
    for x in wrong:
        message = refusal(lambda x=x: fit(model, guide, x, steps=1, batch_size=1))
        assert "outside the support" in message and "in [" in message
    assert all(torch.equal(a, b) for a, b in zip(before, guide.parameters(), strict=True))
    assert fit(model, guide, right, steps=1, batch_size=1).steps == 1
    model, guide = make_pair(networks, likelihood)
    for x in wrong:
        assert "outside the support" in refusal(lambda x=x: AVAE_ELBO()(model, guide)(x))


def test_looking_at_the_data_changes_no_running_statistic_and_no_mode():
    model = ExtendedVAE(MLPDecoder(3, SHAPE, hidden=[8], normalization="batch"), latent_dim=3)
    model.observation.decoder.layers[0].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes, state = [part.training for part in model.modules()], torch.get_rng_state()
    model.check_data(GREY)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert modes == [part.training for part in model.modules()] and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    "use", [exact_bound, lambda *args: verify_bound(*args[:2], AVAE_ELBO(), args[2], num_samples=3)]
)
def test_exact_bounds_of_what_is_no_data(use):
    model = ExtendedVAE(nn.Linear(2, 5), latent_dim=2)
    guide = AVAEGuide(LinearEncoder(5, 2), model, gradient="cut")
    x = torch.randn(4, 5)
    use(model, guide, x)
    wrong = [x[:, :3], x[0], x[0, 0], x[:0], x.long(), x.to(torch.complex64), x * float("nan"), x.numpy(), None]
    for value in wrong:
        refusal(lambda value=value: use(model, guide, value))


def test_images_of_another_shape_are_not_evaluated():
    model, guide = make_pair()
    split = Split(torch.zeros(30, 1, 6, 8, dtype=torch.uint8), {"digit": torch.arange(30) % 2})
    data = ImageData("toy", split, split, {"digit": ("even", "odd")})
    assert "(B, 1, 8, 8)" in refusal(lambda: evaluate(model, guide, data, epsilons=[0.0], steps=1))
    refusal(lambda: iterated_reconstructions(model, guide, GREY[:, :, :6], 1))


@pytest.mark.parametrize("device", ["", "cuda:99", "tpu", "meta", "0", -1, 1.5, "ü", "cpu\ncpu"])
def test_no_such_device(device):
    message = refusal(lambda: fit(*make_pair(), GREY, steps=1, device=device))
    assert message.startswith("device: expected a device of this machine")


def test_the_table_of_sites_that_pyro_adds_is_left_out():
    error = InputError("x: expected that\n     Trace Shapes:   \n Param Sites:\n z 3 |")
    assert str(error) == "x: expected that"
    assert str(InputError("a\nTrace of shapes")) == "a\nTrace of shapes", "nothing else is hidden"


def test_fewer_dimensions_than_an_event_has():
    with pytest.raises(InputError, match=re.escape("with 2 dimensions of an event, got torch.strided of shape (3,)")):
        apply_batched(nn.Identity(), torch.zeros(3), event_dim=2)
