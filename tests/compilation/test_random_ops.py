"""Random operations as functions of standard noise: the distribution, shape and dtype of torch's own."""

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_avae.compilation import BaseNoise, NoiseSource
from pyro_avae.compilation.random_ops import as_function_of_noise, is_random

N = 20_000
P = torch.tensor([0.1, 0.4, 0.0, 0.5])


def with_noise(draw, *, seed=0, strict=True):
    """What ``draw`` returns on standard noise of a seed, every random operation made of it."""

    def refused(operation, args, kwargs):
        raise AssertionError(f"{operation} is no function of standard noise")

    source = NoiseSource(seed)
    with BaseNoise(source.draw, otherwise=refused if strict else None):
        return draw()


CONTINUOUS = {
    "normal of tensors": lambda: torch.normal(torch.full((N,), 1.0), torch.full((N,), 2.0)),
    "normal of a mean": lambda: torch.normal(torch.full((N,), 1.0), 2.0),
    "normal of a scale": lambda: torch.normal(1.0, torch.full((N,), 2.0)),
    "normal of numbers": lambda: torch.normal(1.0, 2.0, (N,)),
    "normal_": lambda: torch.empty(N).normal_(-1.0, 0.5),
    "randn": lambda: torch.randn(N),
    "randn_like": lambda: torch.randn_like(torch.empty(N, dtype=torch.float64)),
    "rand": lambda: torch.rand(N, dtype=torch.float64),
    "rand_like": lambda: torch.rand_like(torch.empty(N)),
    "uniform_": lambda: torch.empty(N).uniform_(-2.0, 3.0),
    "exponential_": lambda: torch.empty(N).exponential_(0.5),
    "cauchy_": lambda: torch.empty(N).cauchy_(1.0, 2.0),
    "log_normal_": lambda: torch.empty(N).log_normal_(0.5, 0.3),
    "Gumbel": lambda: torch.distributions.Gumbel(1.0, 2.0).rsample((N,)),
    "Laplace": lambda: torch.distributions.Laplace(1.0, 2.0).rsample((N,)),
    "Cauchy": lambda: torch.distributions.Cauchy(0.0, 1.0).rsample((N,)),
    "ContinuousBernoulli": lambda: torch.distributions.ContinuousBernoulli(torch.tensor(0.3)).rsample((N,)),
    "LogisticNormal": lambda: torch.distributions.LogisticNormal(torch.zeros(1), torch.ones(1)).rsample((N,))[:, 0],
}

DISCRETE = {
    "bernoulli": lambda: torch.bernoulli(torch.full((N,), 0.3)),
    "bernoulli of p": lambda: torch.bernoulli(torch.empty(N), 0.3),
    "bernoulli_": lambda: torch.empty(N, dtype=torch.int64).bernoulli_(0.3),
    "bernoulli_ of a tensor": lambda: torch.empty(N).bernoulli_(torch.full((N,), 0.3)),
    "geometric_": lambda: torch.empty(N).geometric_(0.3),
    "randint": lambda: torch.randint(7, (N,)),
    "randint of two": lambda: torch.randint(-3, 4, (N,), dtype=torch.int32),
    "randint_like": lambda: torch.randint_like(torch.empty(N), 5),
    "multinomial": lambda: torch.multinomial(P, N, replacement=True),
    "Categorical": lambda: torch.distributions.Categorical(probs=P).sample((N,)),
    "OneHotCategorical": lambda: torch.distributions.OneHotCategorical(probs=P).sample((N,)).argmax(-1),
    "dropout": lambda: torch.nn.functional.dropout(torch.ones(N), 0.3),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_draws_have_the_distribution_of_torch_s(name):
    found, own = with_noise(CONTINUOUS[name]), CONTINUOUS[name]()
    assert (found.shape, found.dtype) == (own.shape, own.dtype)
    # Two samples of one distribution; a wrong scale or location of a few per cent has a far smaller p-value.
    assert stats.ks_2samp(found.double().numpy(), own.double().numpy()).pvalue > 1e-4


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_draws_have_the_distribution_of_torch_s(name):
    found, own = with_noise(DISCRETE[name]), DISCRETE[name]()
    assert (found.shape, found.dtype) == (own.shape, own.dtype)
    values = np.union1d(found.unique().numpy(), own.unique().numpy())
    counts = np.array([[int((sample == value).sum()) for value in values] for sample in (found, own)])
    common = counts.min(0) >= 5
    assert counts[:, ~common].sum() < 40
    assert stats.chi2_contingency(counts[:, common]).pvalue > 1e-4


def test_the_same_noise_makes_the_same_numbers_and_torch_s_generators_are_left_alone():
    before = torch.get_rng_state()
    one, other = with_noise(CONTINUOUS["Laplace"]), with_noise(CONTINUOUS["Laplace"])
    assert torch.equal(one, other) and not torch.equal(one, with_noise(CONTINUOUS["Laplace"], seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_gradients_run_through_them_as_through_torch_s():
    loc, scale = torch.tensor(1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    z = with_noise(lambda: torch.distributions.Normal(loc, scale).rsample((5,)))
    gradients = torch.autograd.grad(z.sum(), [loc, scale])
    torch.testing.assert_close(gradients[0], torch.tensor(5.0))
    torch.testing.assert_close(gradients[1], ((z - 1) / 2).sum())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: torch.distributions.Gamma(2.0, 1.0).rsample((4,)),
        lambda: torch.distributions.Dirichlet(torch.ones(3)).rsample((4,)),
        lambda: torch.distributions.Beta(2.0, 3.0).rsample((4,)),
        lambda: torch.distributions.Binomial(5, torch.tensor(0.3)).sample((4,)),
        lambda: torch.poisson(torch.full((4,), 3.0)),
        lambda: torch.randperm(4),
        lambda: torch.multinomial(P, 2),
        lambda: torch.rand(4, generator=torch.Generator().manual_seed(3)),
    ],
)
def test_what_is_no_function_of_noise_runs_as_ever(draw):
    torch.manual_seed(5)
    found = with_noise(draw, strict=False)
    torch.manual_seed(5)
    assert torch.equal(found, draw())
    with pytest.raises(AssertionError, match="is no function of standard noise"):
        with_noise(draw)


def test_dropout_of_everything_and_of_nothing():
    x = torch.ones(6)
    assert torch.equal(with_noise(lambda: torch.nn.functional.dropout(x, 1.0)), torch.zeros(6))
    assert torch.equal(with_noise(lambda: torch.nn.functional.dropout(x, 0.0)), x)
    fused = torch.ops.aten.native_dropout.default
    made = as_function_of_noise(fused, (x, 0.25, True), {})
    out, kept = made(lambda kind, shape, dtype, device: torch.linspace(0, 0.99, 6))
    assert kept.tolist() == [True] * 4 + [False] * 2
    torch.testing.assert_close(out, kept / 0.75)
    assert torch.equal(as_function_of_noise(fused, (x, 0.25, False), {})(None)[0], x)


def test_only_random_operations_are_random():
    assert is_random(torch.ops.aten.bernoulli_.float) and not is_random(torch.ops.aten.copy_.default)


def test_an_exponential_variable_is_never_zero_or_infinite():
    made = as_function_of_noise(torch.ops.aten.exponential_.default, (torch.empty(2),), {})
    values = made(lambda kind, shape, dtype, device: torch.tensor([0.0, 1 - 2**-24]))
    assert bool((values > 0).all()) and bool(values.isfinite().all())
