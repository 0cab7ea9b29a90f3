"""The amortised guide: what it encodes to, and encoders that return something else."""

import pyro
import pytest
import torch
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.errors import InputError
from pyro_avae.guides import AmortizedGuide, AVAEGuide, LinearEncoder
from pyro_avae.models import VAE, ExtendedVAE

F64 = torch.float64


class Returns(nn.Module):
    """An encoder that returns what it was told to."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return self.make(x)


class ConvEncoder(nn.Module):
    """Works on ``(B, C, H, W)`` only."""

    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(1, 2, 3), nn.Linear(8, 4)

    def forward(self, x):
        assert x.dim() == 4, f"a user's network was called on {x.dim()} dimensions"
        loc, raw = self.out(self.conv(x).flatten(1)).chunk(2, dim=1)
        return loc, raw.exp()


class ConvDecoder(nn.Module):
    """Works on ``(B, L)`` only."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(2, 16)

    def forward(self, z):
        assert z.dim() == 2, f"a user's network was called on {z.dim()} dimensions"
        return self.out(z).view(len(z), 1, 4, 4)


def test_the_posterior_is_the_encoders_gaussian():
    guide = AmortizedGuide(LinearEncoder(4, 2))
    x = torch.rand(3, 4)
    loc, scale = guide.encode(x)
    posterior = guide.posterior(x)
    assert (posterior.batch_shape, posterior.event_shape) == ((3,), (2,))
    z = torch.rand(3, 2)
    by_hand = (-0.5 * ((z - loc) / scale) ** 2 - scale.log() - 0.5 * torch.log(torch.tensor(2 * torch.pi))).sum(-1)
    torch.testing.assert_close(posterior.log_prob(z), by_hand)
    trace = pyro.poutine.trace(guide).get_trace(x)
    assert trace.nodes["z"]["cond_indep_stack"][0].name == "data"
    assert trace.nodes["_RETURN"]["value"] is trace.nodes["z"]["value"]


def test_a_cholesky_factor_makes_a_full_covariance():
    tril = torch.tensor([[1.0, 0.0], [0.7, 0.4]])
    guide = AmortizedGuide(LinearEncoder.from_affine(torch.ones(2, 4), torch.tensor([1.0, -1.0]), tril))
    x = torch.rand(3, 4)
    posterior = guide.posterior(x)
    torch.testing.assert_close(posterior.covariance_matrix, (tril @ tril.T).expand(3, 2, 2))
    torch.testing.assert_close(posterior.mean, x.sum(1, keepdim=True) + torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("full", [False, True])
def test_batch_dimensions_in_front_are_kept(full):
    guide = AmortizedGuide(LinearEncoder(4, 2, full_covariance=full))
    x = torch.rand(5, 3, 4)
    loc, scale = guide.encode(x, event_dim=1)
    for row in range(5):
        one_loc, one_scale = guide.encode(x[row])
        torch.testing.assert_close(loc[row], one_loc)
        torch.testing.assert_close(scale[row], one_scale)
    assert guide.posterior(x, event_dim=1).batch_shape == (5, 3)


@pytest.mark.parametrize("view", ["sample", "mean"])
def test_convolutions_work_with_particles_in_front(view):
    """Equal to the pair whose networks take any number of dimensions, under the same seed."""
    x = torch.rand(3, 1, 4, 4)
    model = ExtendedVAE(ConvDecoder(), latent_dim=2, num_views=2)
    guide = AVAEGuide(ConvEncoder(), model, view=view)

    class AnyDims(nn.Module):
        def __init__(self, network, event_dim):
            super().__init__()
            self.network, self.event_dim = network, event_dim

        def forward(self, x):
            batch = x.shape[: x.dim() - self.event_dim]
            out = self.network(x.reshape(-1, *x.shape[len(batch) :]))
            parts = [t.reshape(*batch, *t.shape[1:]) for t in (out if isinstance(out, tuple) else (out,))]
            return tuple(parts) if isinstance(out, tuple) else parts[0]

    other = ExtendedVAE(AnyDims(model.decoder, 1), latent_dim=2, num_views=2)
    other_guide = AVAEGuide(AnyDims(guide.encoder, 3), other, view=view)
    losses = []
    for pair in ((model, guide), (other, other_guide)):
        torch.manual_seed(1)
        losses.append(AVAE_ELBO(num_particles=5, vectorize_particles=True)(*pair)(x))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x, "got Tensor"),
        (lambda x: None, "got NoneType"),
        (lambda x: {"loc": x, "scale": x}, "got dict"),
        (lambda x: (x, x, x), "got tuple"),
        (lambda x: (x, 1.0), "got tuple"),
        (lambda x: (x, x[:, :1]), r"got loc \(3, 4\) and scale \(3, 1\)"),
        (lambda x: (x, x.new_ones(4)), r"got loc \(3, 4\) and scale \(4,\)"),
        (lambda x: (x, x.new_ones(3, 4, 2)), r"got loc \(3, 4\) and scale \(3, 4, 2\)"),
        (lambda x: (x.sum(1), x.sum(1)), r"got loc \(3,\) and scale \(3,\)"),
    ],
)
def test_an_encoder_that_returns_something_else_is_refused(make, message):
    guide = AmortizedGuide(Returns(make))
    with pytest.raises(InputError, match=r"\Aencoder: expected it to return \(loc, scale\)[^\n]*" + message + r"\Z"):
        guide(torch.rand(3, 4))


def test_an_encoder_with_another_batch_is_refused():
    model = VAE(nn.Linear(4, 4), latent_dim=4)
    guide = AmortizedGuide(Returns(lambda x: (x[:2], x[:2].exp())))
    with pytest.raises(ValueError, match=r"[Ss]hape|batch|dim"):
        AVAE_ELBO()(model, guide)(torch.rand(3, 4))


def test_an_encoder_with_another_number_of_latents_is_refused():
    model = VAE(Returns(lambda z: z.sum(-1, keepdim=True).expand(-1, 4)), latent_dim=1)
    guide = AmortizedGuide(LinearEncoder(4, 3))
    with pytest.raises(ValueError, match="shapes disagree at site 'z'"):
        AVAE_ELBO()(model, guide)(torch.rand(3, 4))


@pytest.mark.parametrize("guide", [AmortizedGuide, lambda e: AVAEGuide(e, ExtendedVAE(nn.Linear(2, 4), latent_dim=2))])
def test_an_encoder_that_is_no_module_is_refused(guide):
    with pytest.raises(InputError, match=r"encoder: expected a torch.nn.Module, got function"):
        guide(lambda x: (x, x.exp()))


def test_float64_and_float32_stay_what_they_are():
    for dtype in (torch.float32, F64):
        guide = AmortizedGuide(LinearEncoder(4, 2, full_covariance=True)).to(dtype)
        assert guide(torch.rand(3, 4, dtype=dtype)).dtype == dtype
