"""Influence over training: its sum over stages, what it leaves behind, planted outliers, and an image on itself."""

import sys
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

from pyro_avae import AVAE_ELBO
from pyro_avae.data import Split, load_dataset
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Stage, cleaning_auc, influence, tracin_weights
from pyro_avae.guides import AmortizedGuide, MLPEncoder
from pyro_avae.models import VAE, MLPDecoder
from pyro_avae.runs.kept import kept_checkpoints, stages
from pyro_avae.training import fit

SHAPE = (1, 4, 4)


class Decoder(nn.Module):
    """A user's own model: plain Pyro, in float64."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 6, dtype=torch.float64)

    def forward(self, x):
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros_like(x[:, :2]), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.layer(z).tanh(), 0.5).to_event(1), obs=x)


class Encoder(nn.Module):
    """A user's own guide, with hardly any noise, so that what it computes is exact up to 1e-7."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 2, dtype=torch.float64)

    def forward(self, x):
        with pyro.plate("images", len(x)):
            pyro.sample("z", dist.Normal(self.layer(x).tanh(), 1e-9).to_event(1))


def own_pair():
    return Decoder(), Encoder()


def loss_gradient(model, guide, x):
    """Of one image, by hand."""
    z = guide.layer(x).tanh()
    log_joint = dist.Normal(model.layer(z).tanh(), 0.5).log_prob(x).sum() + dist.Normal(0.0, 1.0).log_prob(z).sum()
    gradients = torch.autograd.grad(-log_joint, [*model.parameters(), *guide.parameters()])
    return torch.cat([g.flatten() for g in gradients])


def moved(model, guide, by):
    with torch.no_grad():
        for parameter in (*model.parameters(), *guide.parameters()):
            parameter.add_(by)


def test_the_sum_over_stages_for_a_pair_of_ones_own():
    model, guide = own_pair()
    x, y = torch.randn(7, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    before = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    moves = [Stage(10, 0.5, lambda m, g: moved(m, g, 0.1)), Stage(30, 1.5, lambda m, g: moved(m, g, 0.1))]
    found = influence(model, guide, x, y, elbo=Trace_ELBO(), stages=moves, num_samples=2)
    after = [p.detach().clone() for p in (*model.parameters(), *guide.parameters())]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    own, matrix = 0.0, 0.0
    for weight in (0.5, 1.5):
        moved(model, guide, 0.1)
        train, test = (torch.stack([loss_gradient(model, guide, one) for one in part]) for part in (x, y))
        own, matrix = own + weight * train.square().sum(1), matrix + weight * train @ test.T
    # The guide's noise of 1e-9, carried through gradients of its size.
    torch.testing.assert_close(found.self_influence, own, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.influence, matrix, rtol=1e-5, atol=1e-5)
    assert found.steps == [10, 30] and found.weights == [0.5, 1.5] and found.note is None


def test_without_noise_it_is_a_gram_matrix():
    model, guide = own_pair()
    x = torch.randn(6, 6, dtype=torch.float64)
    found = influence(model, guide, x, x, elbo=Trace_ELBO(), num_samples=2)
    matrix = found.influence
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(matrix.diagonal(), found.self_influence, rtol=1e-5, atol=1e-5)
    assert float(torch.linalg.eigvalsh((matrix + matrix.T) / 2).min()) > -1e-5


def test_self_influence_has_no_bias(exact_pair):
    """With respect to the mean of PPCA it is |C^-1 (x - b)|^2; one squared estimate has tr(Cov)/m more."""
    model, guide = exact_pair(6, 2)
    model.requires_grad_(False)
    guide.requires_grad_(False)
    model.observation.decoder.bias.requires_grad_(True)
    weight = model.weight.detach()
    centred = torch.randn(6, dtype=torch.float64)
    c = weight @ weight.T + 0.3 * torch.eye(6, dtype=torch.float64)
    exact = float(torch.linalg.solve(c, centred).square().sum())
    found = influence(model, guide, (model.mean.detach() + centred).expand(4000, 6), num_samples=4).self_influence
    error = float(found.std()) / len(found) ** 0.5
    bias = float((weight @ guide.posterior(centred[None]).scale_tril[0] / 0.3).square().sum()) / 4
    assert abs(float(found.mean()) - exact) < 4 * error and error < bias / 10  # four Monte Carlo standard errors


def test_weights_are_those_of_sgd():
    """Lr over n for each step since the last stage: every image is in B (t - t') / n batches, at lr / B each."""
    assert tracin_weights([50, 100, 200], [0.1, 0.1, 0.2], num_train=10) == pytest.approx([0.5, 0.5, 2.0])


def test_sgd_on_one_image_moves_another_as_predicted():
    """Training on one image alone: n = 1, a stage after each step; influence is the whole change, to first order."""
    model, guide = own_pair()
    x, y, lr, kept = torch.randn(1, 6, dtype=torch.float64), torch.randn(1, 6, dtype=torch.float64), 1e-5, []

    def loss():
        with torch.no_grad():
            z = guide.layer(y).tanh()
            normal = dist.Normal(model.layer(z).tanh(), 0.5)
            return float(-normal.log_prob(y).sum() - dist.Normal(0.0, 1.0).log_prob(z).sum())

    before = loss()
    for step in range(1, 21):
        step_along, gradient = [*model.parameters(), *guide.parameters()], loss_gradient(model, guide, x[0])
        with torch.no_grad():
            for parameter in step_along:
                part, gradient = gradient[: parameter.numel()], gradient[parameter.numel() :]
                parameter -= lr * part.view_as(parameter)
        state = [{k: v.clone() for k, v in part.state_dict().items()} for part in (model, guide)]
        kept.append((step, state))
    steps = [step for step, _ in kept]
    weights = tracin_weights(steps, [lr] * 20, num_train=1)

    def load(state, model, guide):
        model.load_state_dict(state[0])
        guide.load_state_dict(state[1])

    made = [Stage(step, weight, partial(load, state)) for (step, state), weight in zip(kept, weights, strict=True)]
    found = influence(model, guide, x, y, elbo=Trace_ELBO(), stages=made, num_samples=2)
    assert float(found.influence) == pytest.approx(before - loss(), rel=5e-3)  # second order in lr


def test_results_do_not_depend_on_how_many_images_are_done_at_once(make_small):
    model, guide, x = make_small()
    one = influence(model, guide, x, x[:4], num_samples=4, batch_size=3)
    other = influence(model, guide, x, x[:4], num_samples=4, batch_size=50)
    scale = float(one.self_influence.abs().max())  # float32
    torch.testing.assert_close(one.self_influence, other.self_influence, rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(one.influence, other.influence, rtol=1e-4, atol=1e-5 * scale)


@pytest.fixture
def make_small():
    def make():
        model = VAE(MLPDecoder(2, SHAPE, hidden=[8]), latent_dim=2, obs_variance=0.3)
        return model, AmortizedGuide(MLPEncoder(SHAPE, 2, hidden=[8])), torch.rand(12, *SHAPE)

    return make


def test_a_projection_is_near_and_leaves_self_influence_as_it_is(make_small):
    model, guide, x = make_small()
    exact = influence(model, guide, x, x[:3], num_samples=16)
    near = influence(model, guide, x, x[:3], num_samples=16, projection=4096)
    assert torch.equal(exact.self_influence, near.self_influence) and near.projection == 4096
    # |a||b| sqrt(2 / K) is the standard error of an inner product; squared norms are near the self-influences.
    norms = exact.self_influence.clamp(min=0).sqrt()
    error = (norms[:, None] * norms[None, :3]) * (2 / 4096) ** 0.5
    assert ((exact.influence - near.influence).abs() < 6 * error + 1e-3 * norms.max() ** 2).all()
    assert not torch.equal(exact.influence, near.influence)


def test_fewer_than_two_stages_are_said(make_small, caplog):
    model, guide, x = make_small()
    found = influence(model, guide, x, num_samples=2)
    assert found.note in caplog.text and found.note.startswith("no checkpoint of training: influences are those at")
    assert found.influence.shape == (12, 0)
    one = influence(model, guide, x, num_samples=2, stages=[Stage(5, 0.1, lambda m, g: None)])
    assert one.note.startswith("1 checkpoint of training")


def test_modes_are_afterwards_as_before(make_small):
    model, guide, x = make_small()
    model.train()
    guide.eval()
    influence(model, guide, x, num_samples=2)
    assert model.training and not guide.training and all(p.grad is None for p in model.parameters())


def test_progress_counts_every_stage(make_small):
    model, guide, x = make_small()
    seen = []
    moves = [Stage(step, 0.1, lambda m, g: None) for step in (1, 2)]
    influence(model, guide, x, num_samples=2, stages=moves, batch_size=8, progress=lambda *told: seen.append(told))
    assert seen == [("influence", done, 24) for done in (8, 12, 20, 24)]


def test_a_split_is_read_in_its_fixed_form(make_small):
    model, guide, _ = make_small()
    split = Split(torch.randint(256, (5, *SHAPE), dtype=torch.uint8), {})
    found = influence(model, guide, split, split, num_samples=2)
    x, _ = split.fixed_batch(torch.arange(5))
    assert torch.equal(found.influence, influence(model, guide, x, x, num_samples=2).influence)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_samples": 3}, r"^num_samples: expected an even number of at least 2"),
        ({"num_samples": 0}, r"^num_samples: expected an even number of at least 2"),
        ({"batch_size": 0}, r"^batch_size: expected at least 1, got 0"),
        ({"projection": 0}, r"^projection: expected at least 1 dimension, got 0"),
        ({"test": torch.rand(2, 1, 5, 4)}, r"^test: expected images of the training images' shape \(1, 4, 4\), got"),
        ({"train": torch.rand(0, *SHAPE)}, r"^train: expected at least one image, got none"),
    ],
)
def test_what_cannot_be_used_is_refused(make_small, options, match):
    model, guide, x = make_small()
    with pytest.raises(InputError, match=match):
        influence(model, guide, **{"train": x, **options})


def test_too_many_gradients_ask_for_a_projection(make_small, monkeypatch):
    model, guide, x = make_small()
    monkeypatch.setattr(sys.modules["pyro_avae.evaluation.influence"], "_MOST_KEPT", 100)
    with pytest.raises(
        InputError, match=r"^projection: the gradients of 5 test images, \d+ numbers each, are too many"
    ):
        influence(model, guide, x, x[:5], num_samples=2)
    assert influence(model, guide, x, x[:5], num_samples=2, projection=20).influence.shape == (12, 5)


def test_the_area_of_a_perfect_and_of_the_worst_ranking():
    scores = torch.arange(100.0)
    best, worst = scores >= 90, scores < 10
    assert cleaning_auc(scores, best) == pytest.approx(1 - 9 / 200)
    assert cleaning_auc(scores, worst) == pytest.approx(11 / 200)
    generator = torch.Generator().manual_seed(0)
    random = [cleaning_auc(torch.rand(100, generator=generator), best) for _ in range(200)]
    assert sum(random) / 200 == pytest.approx(0.505, abs=0.03)  # (n + 1) / 2n; five standard errors of the mean
    with pytest.raises(InputError, match=r"^planted: expected as many as scores"):
        cleaning_auc(scores, torch.zeros(100, dtype=torch.bool))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A VAE on 300 embedded digits, of which the last 15 are inverted or noise, with its kept checkpoints.

    It is not trained longer: some initial parameters learn two of the images of noise by heart, whose gradients are
    small then. Another torch draws other parameters from the same seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        digits = load_dataset("color-digits", limit=300).train
        grey = digits.fixed_batch(torch.arange(300))[0].mean(1, keepdim=True)[:, :, ::2, ::2].contiguous()
        grey = grey / grey.amax((1, 2, 3), keepdim=True)
        planted = torch.arange(300) >= 285
        grey[285:292] = 1 - grey[285:292]
        grey[292:] = torch.rand(8, *grey.shape[1:]).round()
        model = VAE(MLPDecoder(8, grey.shape[1:], hidden=[32]), latent_dim=8, obs_variance=0.1)
        guide = AmortizedGuide(MLPEncoder(grey.shape[1:], 8, hidden=[32]))
        out = tmp_path_factory.mktemp("runs") / "run"
        fit(model, guide, grey, steps=200, batch_size=32, lr=3e-3, out=out)
        labels = digits.fixed_batch(torch.arange(300))[1]["digit"]
    return model, guide, grey, planted, labels, kept_checkpoints(out)


def test_planted_images_come_out_on_top_and_an_image_is_its_own_strongest_proponent(trained):
    model, guide, x, planted, _, kept = trained
    assert len(kept) == 10
    found = influence(model, guide, x, x[:40], elbo=AVAE_ELBO(), stages=stages(kept), num_samples=32)
    assert cleaning_auc(found.self_influence, planted) > 0.9
    assert planted[found.most_self_influential(10)].float().mean() > 0.8
    own = [int(found.proponents(number, 1)) == number for number in range(40)]
    assert sum(own) >= 30
    assert found.weights == pytest.approx([3e-3 * 20 / 300] * 10)
