"""The Fréchet distance against its closed form, and its features."""

import json
import math
from dataclasses import replace

import pyro
import pytest
import torch
from torch import nn

from pyro_avae.data import ImageData, Split, load_dataset
from pyro_avae.errors import InputError
from pyro_avae.evaluation import Features, classifier_features, fid, frechet_distance, inception_features
from pyro_avae.models import VAE, MLPDecoder


@pytest.fixture(scope="module")
def digits():
    return load_dataset("color-digits")


@pytest.fixture(scope="module")
def features(digits):
    return classifier_features(digits, epochs=8)


def with_moments(mean, covariance, count=60):
    """Points whose sample mean and covariance are exactly these."""
    points = torch.randn(count, len(mean), dtype=torch.float64)
    points = points - points.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(points.T.cov()), points.T, upper=False).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def test_gaussians_of_known_moments():
    """tr (C1 C2)^(1/2) by another road: the eigenvalues of the symmetric C1^(1/2) C2 C1^(1/2)."""
    first, second = torch.randn(2, 4, dtype=torch.float64)
    a, b = torch.randn(2, 4, 4, dtype=torch.float64)
    a, b = a @ a.T + torch.eye(4), b @ b.T + 0.1 * torch.eye(4)
    values, vectors = torch.linalg.eigh(a)
    root = vectors @ values.sqrt().diag() @ vectors.T
    trace = torch.linalg.eigvalsh(root @ b @ root).sqrt().sum()
    expected = float((first - second).square().sum() + a.trace() + b.trace() - 2 * trace)
    x, y = with_moments(first, a), with_moments(second, b, count=90)
    assert frechet_distance(nn.Identity(), x.split(25), [y]) == pytest.approx(expected, rel=1e-9)


def test_commuting_covariances_by_hand():
    """Diagonal covariances: |m|² + Σ (s1 − s2)²."""
    x = with_moments(torch.zeros(2).double(), torch.tensor([4.0, 1.0]).double().diag())
    y = with_moments(torch.tensor([3.0, 0.0]).double(), torch.tensor([1.0, 9.0]).double().diag())
    assert frechet_distance(nn.Identity(), [x], [y]) == pytest.approx(9 + 1 + 4, rel=1e-9)


def test_a_set_is_close_to_itself_and_further_from_noise(digits, features):
    x, _ = digits.test.fixed_batch(torch.arange(300))
    itself = frechet_distance(features.network, [x], [x.flip(0)])
    other = frechet_distance(features.network, [x], [digits.train.fixed_batch(torch.arange(300))[0]])
    faint = frechet_distance(features.network, [x], [(x + 0.1 * torch.randn_like(x)).clamp(0, 1)])
    noise = frechet_distance(features.network, [x], [torch.rand_like(x)])
    assert abs(itself) < 1e-4 * noise  # the root of a rank-deficient product is exact to half the digits
    assert abs(itself) < other < noise
    assert abs(itself) < faint < noise


def test_the_result_says_what_it_is(trained, features):
    result = fid(trained.model, trained.data, features=features, num_samples=200, seed=5)
    assert json.loads(json.dumps(result)) == result
    assert result["fid"] > 0
    assert result["fid_features"] == features.name
    assert (result["num_samples"], result["num_test_images"]) == (200, 200)
    assert (result["noise"], result["seed"]) == (False, 5)
    assert fid(trained.model, trained.data, features=features, num_samples=500)["num_test_images"] == 360


def test_a_seed_gives_one_number_and_nothing_else_moves(trained, features):
    before = torch.get_rng_state()
    trained.model.train()

    def run(**options):
        return fid(trained.model, trained.data, features=features, num_samples=100, **options)["fid"]

    first = run(seed=1)
    assert run(seed=1) == first != run(seed=2)
    assert run(seed=1, batch_size=30) == pytest.approx(first, rel=1e-6)  # float32 sums in another order
    assert torch.equal(before, torch.get_rng_state())
    assert trained.model.training


def test_a_trained_model_beats_an_untrained_one(trained, features):
    untrained = VAE(MLPDecoder(8, trained.data.shape, hidden=[64]), latent_dim=8)

    def run(model):
        return fid(model, trained.data, features=features, num_samples=300)["fid"]

    assert run(trained.model) < run(untrained)


@pytest.mark.parametrize(("obs_variance", "same"), [(1e-12, True), (0.25, False)])
def test_noise_draws_from_the_likelihood_at_the_same_latents(trained, features, obs_variance, same):
    model = VAE(trained.model.decoder, latent_dim=8, obs_variance=obs_variance)

    def run(noise):
        return fid(model, trained.data, features=features, num_samples=100, noise=noise)

    mean, drawn = run(False), run(True)
    assert (mean["noise"], drawn["noise"]) == (False, True)
    assert (drawn["fid"] == pytest.approx(mean["fid"], rel=1e-3)) is same  # a scale of 1e-6 moves pixels by as much


def test_the_classifier_learns_the_task_with_the_most_classes(digits, features):
    assert features.name.startswith("classifier trained on color-digits/digit, accuracy 0.")
    assert features.name.endswith("dim 64, seed 0")
    assert float(features.name.split("accuracy ")[1][:5]) > 0.9
    assert classifier_features(digits, task="color", epochs=1, num_train=64).name.count("/color,") == 1


def test_the_classifier_is_the_same_for_the_same_seed(digits):
    x = digits.test.fixed_batch(torch.arange(5))[0]

    def run(seed):
        return classifier_features(digits, epochs=1, num_train=300, seed=seed).network(x)

    before = torch.get_rng_state()
    first = run(0)
    torch.rand(3)  # the caller's random state has no part in it
    assert torch.equal(run(0), first)
    assert not torch.equal(run(1), first)
    assert not first.requires_grad
    torch.set_rng_state(before)
    with torch.no_grad():
        assert torch.equal(run(0), first)


def test_data_without_labels_are_refused_with_a_way_out(trained):
    split = Split(torch.zeros(20, 3, 28, 28, dtype=torch.uint8), {})
    data = ImageData("mine", split, split, {})
    with pytest.raises(InputError, match=r"mine has no labels to train a classifier on; use features 'inception'"):
        fid(trained.model, data)
    own = Features(nn.Flatten(), "pixels")
    assert (
        fid(trained.model, ImageData("mine", split.limit(2), split.limit(2), {}), features=own, num_samples=2)[
            "fid_features"
        ]
        == "pixels"
    )


def test_one_class_is_refused():
    split = Split(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), {"kind": torch.zeros(4, dtype=torch.int64)})
    with pytest.raises(InputError, match="has one class"):
        classifier_features(ImageData("mine", split, split, {"kind": ("all",)}))


def test_inception_without_weights_says_how_to_get_them(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputError, match=r"no weights at .*checkpoints.*; download https://github.com/toshas"):
        inception_features()


def test_inception_without_torch_fidelity_says_how_to_get_it(trained, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity", None)
    with pytest.raises(InputError, match=r"pip install torch-fidelity.*pyro-avae\[fid\]"):
        fid(trained.model, trained.data, features="inception")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": "resnet"}, "features: expected one of classifier, inception"),
        ({"num_samples": 1}, "num_samples: expected at least 2"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
    ],
)
def test_impossible_options_are_refused(trained, options, message):
    with pytest.raises(InputError, match=message):
        fid(trained.model, trained.data, **options)


def test_models_that_do_not_fit_are_refused(trained, features):
    with pytest.raises(InputError, match="data: expected an ImageData"):
        fid(trained.model, trained.data.test)
    grey = VAE(MLPDecoder(2, (1, 28, 28), hidden=[4]), latent_dim=2)
    with pytest.raises(InputError, match=r"expected images of shape \(3, 28, 28\)"):
        fid(grey, trained.data, features=features, num_samples=10)
    broken = VAE(MLPDecoder(2, (3, 28, 28), hidden=[4]), latent_dim=2)
    with torch.no_grad():
        next(broken.parameters()).fill_(math.nan)
    with pyro.validation_enabled(False), pytest.raises(InputError, match="not finite"):
        fid(broken, trained.data, features=features, num_samples=10)


def test_a_model_without_a_prior_draws_from_the_standard_normal(trained, features):
    class Bare(nn.Module):
        latent_dim = 8

        def __init__(self, model):
            super().__init__()
            self.decoder = model.decoder

        def decode(self, z):
            return self.decoder(z)

    plain = fid(Bare(trained.model), trained.data, features=features, num_samples=50)
    assert plain["fid"] == pytest.approx(
        fid(trained.model, trained.data, features=features, num_samples=50)["fid"], rel=1e-6
    )


@pytest.mark.slow
def test_color_mnist_in_full(data_root):
    """The features are good ones where there is enough to learn from."""
    data = load_dataset("color-mnist", root=data_root)
    made = classifier_features(data)
    assert float(made.name.split("accuracy ")[1][:5]) > 0.95
    half = replace(data, test=data.train.limit(5000))
    x = [half.test.fixed_batch(part)[0] for part in torch.arange(5000).split(500)]
    y = [data.test.fixed_batch(part)[0] for part in torch.arange(5000).split(500)]
    real = frechet_distance(made.network, x, y)
    noise = frechet_distance(made.network, x, [torch.rand_like(batch) for batch in y])
    assert real < 0.02 * noise
