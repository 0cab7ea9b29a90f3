"""Couplings: the laws they state, their limits, and what they refuse."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyro_avae import AVAE_ELBO
from pyro_avae.coupling import Coupling, FixedRho, LearnedRho, MatrixRho, as_coupling, optimal_rho
from pyro_avae.errors import InputError
from pyro_avae.guides import AVAEGuide, LinearEncoder
from pyro_avae.models import PPCA, ExtendedVAE

F64 = torch.float64
EPS = torch.finfo(F64).eps


def affine(coupling, latent_dim, dtype=F64):
    """Matrix and covariance of z' = R z + noise, read off the distribution."""
    at_zero = coupling(torch.zeros(latent_dim, dtype=dtype))
    columns = [coupling(row).mean - at_zero.mean for row in torch.eye(latent_dim, dtype=dtype)]
    assert bool((at_zero.mean == 0).all())
    covariance = getattr(at_zero, "covariance_matrix", None)
    return torch.stack(columns, 1), at_zero.variance.diag() if covariance is None else covariance


RHOS = [
    0.975,
    -0.7,
    0.0,
    0,
    (0.9, -0.2, 0.0),
    [0.1, 0.2, 0.3],
    np.array([0.5, 0.6, 0.7]),
    torch.tensor([0.5, 0.1, 0.0]),
]


@pytest.mark.parametrize("rho", [*RHOS, torch.tensor(0.4), np.float64(0.3)])
def test_the_joint_of_a_fixed_rho_is_the_stated_one(rho):
    coupling = FixedRho(rho, latent_dim=3)
    matrix, covariance = affine(coupling, 3)
    # float32 tensors are taken at their own value, exactly
    stated = torch.as_tensor(rho, dtype=F64).expand(3)
    torch.testing.assert_close(matrix, stated.diag(), rtol=4 * EPS, atol=4 * EPS)
    # joint of (z, z'): [[I, rho], [rho, rho^2 + covariance]] must be [[I, rho I], [rho I, I]]
    torch.testing.assert_close(matrix @ matrix.T + covariance, torch.eye(3, dtype=F64), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(covariance.diagonal(), 1 - stated**2, rtol=1e-6, atol=1e-6)
    if not (isinstance(rho, torch.Tensor) and rho.dtype == torch.float32):
        torch.testing.assert_close(covariance.diagonal(), 1 - stated**2, rtol=8 * EPS, atol=8 * EPS)


@pytest.mark.parametrize("rho", [1 - 1e-9, [1 - 1e-9, -1 + 1e-9]])
def test_a_rho_next_to_one_keeps_its_scale_in_float32(rho):
    scale = FixedRho(rho, latent_dim=2)(torch.zeros(1, 2)).variance.sqrt()
    expected = math.sqrt(1e-9 * (2 - 1e-9))
    # 1 - 1e-9 is stored with a relative error of eps/1e-9 in its distance from 1; the rest is float32's
    torch.testing.assert_close(scale, torch.full((1, 2), expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("make", [FixedRho, LearnedRho])
def test_a_rho_has_no_side_effect_on_what_it_was_made_from(make):
    rho = torch.tensor([0.5, 0.1])
    coupling = make(rho, latent_dim=2)
    before = coupling(torch.ones(1, 2)).mean.clone()
    rho.fill_(0.9)
    torch.testing.assert_close(coupling(torch.ones(1, 2)).mean, before, rtol=0, atol=0)


BAD = {
    "one": (1.0, r"got 1.0"),
    "minus_one": (-1, r"got -1.0"),
    "large": (1.5, r"got 1.5"),
    "nan": (math.nan, r"got nan"),
    "inf": (math.inf, r"got inf"),
    "one_of_three": ([0.1, 1.0, 0.2], r"got \[0.1, 1.0, 0.2\]"),
    "nan_of_three": (torch.tensor([0.5, math.nan, 0.0]), r"got \[0.5, nan, 0.0\]"),
    "two_of_three": ([0.1, 0.2], r"got shape \(2,\)"),
    "matrix": (torch.zeros(3, 3), r"got shape \(3, 3\)"),
    "empty": ([], r"got shape \(0,\)"),
    "true": (True, r"got True of dtype torch.bool"),
    "false": (False, r"got False of dtype torch.bool"),
    "bools": ([False, False, False], r"got \[False, False, False\] of dtype torch.bool"),
    "bool_tensor": (torch.tensor(False), r"dtype torch.bool"),
    "complex": (0.5j, r"got 0.5j"),
    "complex_tensor": (torch.tensor(0.5j), r"dtype torch.complex64"),
    "none": (None, r"got None"),
    "strings": (["a", "b", "c"], r"got \['a', 'b', 'c'\]"),
    "grad": (torch.tensor(0.5, requires_grad=True), r"got a tensor that requires grad; to learn it, pass 'learned'"),
}


@pytest.mark.parametrize(("rho", "got"), BAD.values(), ids=BAD.keys())
def test_a_bad_rho_is_refused_by_name_value_and_what_is_allowed(rho, got):
    allowed = r"expected a number in \(-1, 1\) or one per latent dimension, shape \(3,\), "
    for name, make in (
        ("rho", lambda: FixedRho(rho, latent_dim=3)),
        ("rho", lambda: as_coupling(rho, latent_dim=3)),
        ("rho", lambda: ExtendedVAE(torch.nn.Linear(3, 4), latent_dim=3, rho=rho)),
        ("init", lambda: LearnedRho(rho, latent_dim=3)),
    ):
        with pytest.raises(InputError, match=rf"\A{name}: {allowed}[^\n]*{got}[^\n]*\Z"):
            make()


@pytest.mark.parametrize("rho", ["0.9", "learn", ""])
def test_a_string_other_than_learned_is_refused(rho):
    with pytest.raises(InputError, match=rf"rho: expected a number in \(-1, 1\), .*'learned', .* got '{rho}'"):
        as_coupling(rho, latent_dim=2)


def test_as_coupling_makes_what_was_asked_for():
    own = FixedRho(0.2, latent_dim=2)
    assert as_coupling(own, latent_dim=2) is own
    assert isinstance(as_coupling("learned", latent_dim=2), LearnedRho)
    assert as_coupling(0.3, latent_dim=2).rho == 0.3


@pytest.mark.parametrize(("init", "per_dimension"), [(0.9, False), (-0.5, True), ((0.1, -0.999, 0.0), True)])
def test_a_learned_rho_starts_at_init(init, per_dimension):
    coupling = LearnedRho(init, latent_dim=3, per_dimension=per_dimension)
    expected = torch.as_tensor(init).expand(3) if per_dimension else torch.as_tensor(init)
    assert coupling.raw.shape == expected.shape
    # d rho = (1 - rho^2) d raw: rounding raw in float32 moves rho by less than a rounding of raw
    torch.testing.assert_close(coupling.rho, expected, rtol=0, atol=8 * torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("raw", [1e4, -1e4, 30.0, -9.0])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_a_learned_rho_stays_inside_with_finite_loss_and_gradient(raw, dtype):
    model = ExtendedVAE(torch.nn.Linear(2, 3), latent_dim=2, rho="learned").to(dtype)
    guide = AVAEGuide(LinearEncoder(3, 2).to(dtype), model)
    with torch.no_grad():
        model.coupling.raw.fill_(raw)
    assert bool(model.coupling.rho.abs() < 1)
    loss = AVAE_ELBO()(model, guide)(torch.rand(4, 3, dtype=dtype))
    grads = torch.autograd.grad(loss, [*model.parameters(), *guide.parameters()])
    assert bool(loss.isfinite())
    assert all(bool(grad.isfinite().all()) for grad in grads)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(1, 4), st.floats(0.0, 0.99), st.integers(0, 2**31))
def test_a_matrix_coupling_leaves_the_prior_invariant(latent_dim, norm, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(latent_dim, latent_dim, dtype=F64, generator=generator)
    matrix = norm * matrix / torch.linalg.matrix_norm(matrix, ord=2)
    read, covariance = affine(MatrixRho(matrix), latent_dim)
    torch.testing.assert_close(read, matrix, rtol=0, atol=0)
    eye = torch.eye(latent_dim, dtype=F64)
    torch.testing.assert_close(matrix @ matrix.T + covariance, eye, rtol=0, atol=50 * EPS)


def test_a_matrix_coupling_of_a_diagonal_is_the_fixed_rho():
    z = torch.rand(5, 2, dtype=F64)
    diagonal = torch.tensor([0.9, -0.3], dtype=F64)
    one, other = MatrixRho(diagonal.diag())(z), FixedRho(diagonal, latent_dim=2)(z)
    value = torch.rand(5, 2, dtype=F64)
    torch.testing.assert_close(one.log_prob(value), other.log_prob(value), rtol=1e3 * EPS, atol=1e3 * EPS)


def test_a_matrix_coupling_holds_what_it_was_made_from_constant():
    """Made of a model's own natural rho, it can be copied, and stepped through more than once."""
    ppca = PPCA(torch.tensor([[1.0], [0.5]]), obs_variance=0.3)
    model = ExtendedVAE(ppca.decoder, latent_dim=1, rho=MatrixRho(ppca.natural_rho()), obs_variance=0.3)
    guide = AVAEGuide(LinearEncoder(2, 1), model)
    for _ in range(2):
        AVAE_ELBO()(model, guide)(torch.rand(3, 2)).backward()
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied.coupling.matrix, ppca.natural_rho().detach())


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.zeros(2, 3), r"expected a square matrix \(L, L\), got shape \(2, 3\)"),
        (torch.zeros(2), r"got shape \(2,\)"),
        (torch.eye(2), "spectral norm below 1, got norm 1.0"),
        (torch.tensor([[0.0, 1.2], [0.0, 0.0]]), r"got norm 1.2"),
        (torch.tensor([[math.nan, 0.0], [0.0, 0.0]]), "got norm nan"),
        (torch.tensor([[math.inf, 0.0], [0.0, 0.0]]), "got norm nan"),
    ],
)
def test_a_bad_matrix_is_refused(matrix, message):
    with pytest.raises(InputError, match=rf"\Arho: [^\n]*{message}[^\n]*\Z"):
        MatrixRho(matrix)


@pytest.mark.parametrize("dtype", [None, F64])
@pytest.mark.parametrize("init", [0.9, [0.1, -0.7], torch.tensor([0.3, -0.99999], dtype=F64)])
def test_a_learned_rho_made_in_float64_starts_exactly_there(init, dtype):
    if dtype is None and not isinstance(init, torch.Tensor):
        assert LearnedRho(init, latent_dim=2).raw.dtype is torch.float32
        return
    coupling = LearnedRho(init, latent_dim=2, dtype=dtype)
    assert coupling.raw.dtype is F64
    # d rho = (1 - rho^2) d raw, and raw is below 7
    torch.testing.assert_close(coupling.rho.detach(), torch.as_tensor(init, dtype=F64), rtol=0, atol=16 * EPS)


def test_a_learned_rho_next_to_one_in_float32_is_finite():
    almost = torch.tensor(1 - 2.0**-24)
    assert bool(LearnedRho(almost, latent_dim=1).raw.isfinite())


SIZED = {
    "matrix": lambda: MatrixRho(torch.eye(2) / 2),
    "fixed": lambda: FixedRho([0.1, 0.2], latent_dim=2),
    "learned": lambda: LearnedRho(0.5, latent_dim=2, per_dimension=True),
    "learned_each": lambda: LearnedRho([0.5, 0.1], latent_dim=2),
}


@pytest.mark.parametrize("make", SIZED.values(), ids=SIZED.keys())
def test_a_coupling_of_another_size_is_refused(make):
    coupling = make()
    assert as_coupling(coupling, latent_dim=2) is coupling
    message = rf"\Arho: expected a coupling of latent_dim=3, got a {type(coupling).__name__} of latent_dim=2\Z"
    for refused in (
        lambda: as_coupling(coupling, latent_dim=3),
        lambda: ExtendedVAE(torch.nn.Linear(3, 4), latent_dim=3, rho=coupling),
    ):
        with pytest.raises(InputError, match=message):
            refused()


class Flip(Coupling):
    """A user's own, z' = -z but for noise, of no size."""

    def forward(self, z):
        return FixedRho(-0.9, latent_dim=z.shape[-1])(z)


@pytest.mark.parametrize("make", [Flip, lambda: FixedRho(0.2, latent_dim=2), lambda: LearnedRho(0.2, latent_dim=2)])
def test_a_coupling_without_a_size_fits_any(make):
    coupling = make()
    assert as_coupling(coupling, latent_dim=5)(torch.zeros(3, 5)).batch_shape == (3,)


def consistency_loss(rho, a, b, c, size):
    """E -log N(z'; rho z, (1 - rho^2) I) without its 2 pi, from the moments."""
    return 0.5 * size * np.log(1 - rho**2) + (a - 2 * rho * b + rho**2 * c) / (2 * (1 - rho**2))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(1e-3, 20), st.floats(-0.999, 0.999), st.floats(1e-3, 20), st.integers(1, 64))
def test_the_optimal_rho_beats_every_other(a, correlation, c, size):
    b = correlation * math.sqrt(a * c)
    assume(b * b < a * c)
    best = optimal_rho(a, b, c, latent_dim=size)
    grid = np.concatenate([np.linspace(-1, 1, 4001)[1:-1], 1 - np.logspace(-9, -3, 50), np.logspace(-9, -3, 50) - 1])
    losses = consistency_loss(grid, a, b, c, size)
    assert -1 < best < 1
    # 1 - rho^2 carries a relative rounding of eps/(1 - rho^2) into the loss
    slack = 1e3 * EPS * (1 + abs(losses.min())) / (1 - best**2)
    assert consistency_loss(best, a, b, c, size) <= losses.min() + slack
    # a root of the cubic: its value is bounded by a rounding of its own coefficients
    cubic = size * best**3 - b * best**2 + (a + c - size) * best - b
    assert abs(cubic) <= 1e4 * EPS * (size + abs(b) + a + c)


@pytest.mark.parametrize("moments", [(4.0, 2.0, 1.0), (0.25, -0.5, 1.0), (0.3, math.sqrt(0.21), 0.7), (0.0, 0.0, 0.4)])
@pytest.mark.parametrize("size", [1, 8])
def test_a_second_latent_that_is_a_multiple_of_the_first_has_an_optimal_rho(moments, size):
    """B^2 = A C, A != C: perfectly correlated, and yet the loss rises to both edges."""
    best = optimal_rho(*moments, latent_dim=size)
    grid = np.linspace(-1, 1, 4001)[1:-1]
    losses = consistency_loss(grid, *moments, size)
    assert -1 < best < 1
    assert losses.argmin() not in (0, len(grid) - 1)
    assert consistency_loss(best, *moments, size) <= losses.min() + 1e3 * EPS * (1 + abs(losses.min()))


@pytest.mark.parametrize("b", [1 - 2.0**-53, -1 + 2.0**-53, 1 - 1e-15, -1 + 1e-15, 1 - 1e-8, 0.0])
def test_the_optimal_rho_exists_up_to_the_edge(b):
    assert optimal_rho(1.0, b, 1.0) == pytest.approx(b, abs=1e-7)


@pytest.mark.parametrize(
    "moments",
    [(1.0, 1.0, 1.0), (1.0, -2.0, 1.0), (0.0, 0.0, 0.0), (3.0, 0.0, -1.0), (math.nan, 0.0, 1.0), (1.0, 0.0, math.inf)],
)
def test_moments_without_a_minimum_are_refused(moments):
    with pytest.raises(InputError, match=r"\Amoments: expected A, C >= 0 and 2\|B\| < A \+ C, got A=[^\n]*\Z"):
        optimal_rho(*moments)


def test_two_basins_and_learned_rho_reaches_the_one_it_starts_in():
    """A = C = 0.3, B = 0.02: three stationary points, two of them minima; the upper one is the lower."""
    a, b, c = 0.3, 0.02, 0.3
    roots = np.sort(np.roots([1, -b, a + c - 1, -b]).real)
    assert np.all(np.abs(np.roots([1, -b, a + c - 1, -b]).imag) == 0)
    assert np.all(np.abs(roots) < 1)
    losses = consistency_loss(roots, a, b, c, 1)
    assert losses[1] > losses[0] > losses[2]
    assert optimal_rho(a, b, c) == pytest.approx(roots[2], abs=1e3 * EPS)

    # Four points with exactly these second moments: z' = +-s_1 u + s_2 v along the axes of their covariance.
    root = torch.linalg.cholesky(torch.tensor([[c, b], [b, a]], dtype=F64))
    corners = torch.tensor([[1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=F64)
    z, z_aux = (corners @ root.T)[:, :1], (corners @ root.T)[:, 1:]
    for init, expected in (
        (roots[1] + 0.05, roots[2]),
        (roots[1] - 0.05, roots[0]),
        (0.95, roots[2]),
        (-0.95, roots[0]),
    ):
        coupling = LearnedRho(float(init), latent_dim=1).double()
        optimiser = torch.optim.SGD(coupling.parameters(), lr=0.3)  # too short a step to jump the barrier
        for _ in range(500):
            optimiser.zero_grad()
            (-coupling(z).log_prob(z_aux).mean()).backward()
            optimiser.step()
        # converged: what 500 steps of rate lr * curvature > 0.03 leave of the distance is below e^-15
        assert float(coupling.rho.detach()) == pytest.approx(expected, abs=1e-5)
