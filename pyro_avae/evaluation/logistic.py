r"""Multinomial logistic regression by Newton's method, on the device of its features and in double precision.

The objective is scikit-learn's ``LogisticRegression``, divided by the number N of rows and by C:

.. math:: f(W, b) = -\frac1N \sum_i \log \operatorname{softmax}(W x_i + b)_{y_i} + \frac1{2CN} \lVert W \rVert^2,

strictly convex in W and the differences of b, so that its optimum does not depend on the solver. Why not scikit-learn's
solvers: the latents of one encoder differ in scale by orders of magnitude, where first-order solvers stop early or take
hundreds of passes, and its Newton steps on the full Hessian take N K² L² operations each, on the host. Here a step is
found by conjugate gradients (N K L operations an iteration), which take few iterations because they are
preconditioned by the Hessian of some thousand rows, drawn where the curvature is.
"""

import torch
from torch import Tensor

__all__ = ["LogisticRegression"]

#: Solved where no entry of the gradient and no half squared Newton decrement is larger; scikit-learn's two conditions.
_TOLERANCE = 1e-6
_MAX_STEPS = 200

# Rows behind the preconditioner: several times the number of parameters of a probe, and a small part of the rows.
_SAMPLE = 4096

_MAX_ITERATIONS = 200

# Rows of a block of :func:`_over_rows`.
_BLOCK = 1000

# With more iterations than this the preconditioner is out of date: a new one costs about as much as these.
_OUT_OF_DATE = 12

# Parameters up to which the preconditioner is a whole matrix; beyond, factoring it (a cube of their number) would cost
# more than it saves, and it has a block for each class.
_MOST_IN_ONE_BLOCK = 1500


class LogisticRegression:
    """Fits to one set of features, each of which starts where the last one ended.

    Two classes have one row of W, the log odds of the second, as in scikit-learn; more have one row each.

    Args:
        x: features ``(N, L)`` in double precision, standardised.
        y: classes ``(N,)`` in ``0 .. K − 1``, each of which occurs.
        start: ``(R, L + 1)`` parameters to start from, R = 1 for two classes, else K; zeros by default.

    Attributes:
        parameters: ``(R, L + 1)``, W and behind it b. The b of three classes or more sum to 0.

    Example:
        >>> x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=torch.float64)
        >>> regression = LogisticRegression(x, torch.tensor([0, 0, 1, 1]))
        >>> regression.fit(1.0), regression.predict(x).tolist()
        (True, [0, 0, 1, 1])
    """

    def __init__(self, x: Tensor, y: Tensor, *, start: Tensor | None = None) -> None:
        self.x = _with_one(x)
        self.y = y
        classes = int(y.max()) + 1
        rows = 1 if classes == 2 else classes
        self.targets = torch.nn.functional.one_hot(y, classes)[:, -rows:].to(x)
        self.parameters = x.new_zeros(rows, self.x.shape[1]) if start is None else start.clone()
        self._sampled: Tensor | None = None

    def predict(self, x: Tensor) -> Tensor:
        """The likeliest class ``(M,)`` of features ``(M, L)``."""
        return _logits(_with_one(x), self.parameters).argmax(-1)

    def fit(self, c: float) -> bool:
        """Go to the optimum at inverse regularisation strength ``c``; whether it was reached.

        Not reached is an optimum that no finite number of steps reaches, and one that is so flat that rounding decides
        where it lies.
        """
        penalty = torch.full_like(self.parameters, 1.0 / (c * len(self.x)))
        penalty[:, -1] = 0.0
        determined, factor = True, None
        for _ in range(_MAX_STEPS):
            probabilities, gradient = self._gradient(penalty)
            if self._sampled is None:
                self._sampled = self._curvature(probabilities)
            if factor is None:
                factor, clear = _factor(self._sampled, penalty)
                determined = determined and clear
            direction, iterations = self._newton_direction(probabilities, gradient, penalty, factor)
            if iterations > _OUT_OF_DATE:
                self._sampled = factor = None
            decrement = -float((gradient * direction).sum())
            solved = max(float(gradient.abs().max()), decrement / 2) <= _TOLERANCE
            if not self._step(direction, penalty, decrement):
                return solved and determined
            if solved:
                return determined
        return False

    def _value(self, logits: Tensor, parameters: Tensor, penalty: Tensor) -> Tensor:
        """f and the term that fixes the gauge, 0-d."""
        quadratic = (penalty * parameters.square()).sum() + _gauge(parameters) * parameters[:, -1].sum()
        return torch.nn.functional.cross_entropy(logits, self.y) + 0.5 * quadratic

    def _gradient(self, penalty: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities ``(N, R)`` of the classes that have a row, and the gradient ``(R, L + 1)``."""
        probabilities = _logits(self.x, self.parameters).softmax(-1)[:, -len(self.parameters) :]
        gradient = _over_rows(probabilities - self.targets, self.x) / len(self.x) + penalty * self.parameters
        gradient[:, -1] += _gauge(self.parameters)
        return probabilities, gradient

    def _curvature(self, probabilities: Tensor) -> Tensor:
        """The Hessian of the first term ``(R (L + 1), R (L + 1))``, estimated on a sample of rows; where there are many
        parameters, the blocks of the classes alone, ``(R, L + 1, L + 1)``.

        A row is drawn with a probability in proportion to its curvature, the trace of diag p − p p', and weighs as much
        more as it was unlikely: where most rows are classified for certain, few of them bend f.
        """
        curvature = (probabilities - probabilities.square()).sum(1)
        chance = (_SAMPLE * curvature / curvature.sum().clamp_min(torch.finfo(curvature.dtype).tiny)).clamp(0.01, 1.0)
        generator = torch.Generator().manual_seed(0)
        draws = torch.rand(len(chance), generator=generator, dtype=chance.dtype).to(chance.device)
        (drawn,) = (draws < chance).nonzero(as_tuple=True)
        x, p, weight = self.x[drawn], probabilities[drawn], 1.0 / (chance[drawn] * len(self.x))
        rows, columns = p.shape[1], x.shape[1]
        if rows * columns > _MOST_IN_ONE_BLOCK:
            bends = weight[:, None] * (p - p.square())
            return torch.stack([x.T @ (bend[:, None] * x) for bend in bends.T])
        hessian = x.new_empty(rows, columns, rows, columns)
        for row in range(rows):  # a loop over classes: all at once would hold R times the memory
            bend = -p * p[:, row : row + 1]
            bend[:, row] += p[:, row]
            hessian[row] = (x.T @ ((weight[:, None] * bend)[:, :, None] * x[:, None, :]).flatten(1)).unflatten(
                1, (rows, columns)
            )
        return hessian.reshape(rows * columns, rows * columns)

    def _newton_direction(
        self, probabilities: Tensor, gradient: Tensor, penalty: Tensor, factor: Tensor
    ) -> tuple[Tensor, int]:
        """An approximate solution ``(R, L + 1)`` of Hessian · d = −gradient, the closer the smaller the gradient."""

        def hessian(v: Tensor) -> Tensor:
            bend = probabilities * (self.x @ v.T)
            bend = torch.addcmul(bend, probabilities, bend.sum(1, keepdim=True), value=-1.0)
            product = _over_rows(bend, self.x) / len(self.x) + penalty * v
            product[:, -1] += _gauge(v)
            return product

        def precondition(v: Tensor) -> Tensor:
            columns = v.unsqueeze(-1) if factor.dim() == 3 else v.reshape(-1, 1)
            return torch.cholesky_solve(columns, factor).reshape(v.shape)

        direction, residual = torch.zeros_like(gradient), -gradient
        conditioned = precondition(residual)
        search, size = conditioned, float((residual * conditioned).sum())
        # A part of the residual that shrinks with the gradient makes the steps converge faster than linearly.
        enough = size * min(0.1, size**0.25) ** 2
        for iteration in range(_MAX_ITERATIONS):
            bent = hessian(search)
            along = float((search * bent).sum())
            if size <= enough or along <= 0.0:
                return direction, iteration
            direction = direction + (size / along) * search
            residual = residual - (size / along) * bent
            conditioned = precondition(residual)
            previous, size = size, float((residual * conditioned).sum())
            search = conditioned + (size / previous) * search
        return direction, _MAX_ITERATIONS

    def _step(self, direction: Tensor, penalty: Tensor, decrement: float) -> bool:
        """Go along the direction as far as f falls as it should; whether it fell."""
        logits, change = _logits(self.x, self.parameters), _logits(self.x, direction)
        before = float(self._value(logits, self.parameters, penalty))
        length = 1.0
        # What rounding of the value may hide is no rise: at the optimum a full step changes nothing else.
        slack = 16 * torch.finfo(logits.dtype).eps * abs(before)
        for _ in range(30):
            moved = self.parameters + length * direction
            value = float(self._value(logits + length * change, moved, penalty))
            if value <= before - 1e-4 * length * decrement + slack:
                self.parameters = moved
                return True
            length /= 2
        return False


def _with_one(x: Tensor) -> Tensor:
    """Features and the constant that the intercept multiplies, ``(N, L + 1)``."""
    return torch.cat([x, x.new_ones(len(x), 1)], dim=1)


def _logits(x: Tensor, parameters: Tensor) -> Tensor:
    """``(N, L + 1)`` to the logits of all classes, ``(N, K)``: the first of two classes has none of its own."""
    logits = x @ parameters.T
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def _factor(sampled: Tensor, penalty: Tensor) -> tuple[Tensor, bool]:
    """A Cholesky factor of the estimated Hessian of f, or of each of its blocks, and whether no direction of it is flat
    up to rounding.
    """
    rows, columns = penalty.shape
    if sampled.dim() == 3:
        hessian = sampled + penalty.diag_embed()
        hessian[:, -1, -1] += 1.0 / rows
        return _factored(hessian)
    hessian = sampled + penalty.flatten().diag()
    if rows > 1:
        hessian.view(rows, columns, rows, columns)[:, -1, :, -1] += 1.0 / rows
    return _factored(hessian)


def _factored(hessian: Tensor) -> tuple[Tensor, bool]:
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    rounding = torch.finfo(hessian.dtype).eps * float(diagonal.sum())
    for ridge in (rounding, 1e3 * rounding, 1e6 * rounding):
        factor, failed = torch.linalg.cholesky_ex(hessian + torch.full_like(diagonal, ridge).diag_embed())
        if not bool(failed.any()):
            return factor, float(factor.diagonal(dim1=-2, dim2=-1).square().min()) > 2 * ridge
    return torch.eye(hessian.shape[-1]).to(hessian).expand_as(hessian), False


def _over_rows(a: Tensor, b: Tensor) -> Tensor:
    """``a' b`` of ``(N, R)`` and ``(N, C)``, by blocks: a product over many rows at once takes twice as long.

    Example:
        >>> _over_rows(torch.ones(1003, 1), torch.ones(1003, 2))
        tensor([[1003., 1003.]])
    """
    count = len(a) // _BLOCK
    whole = count * _BLOCK
    blocks = torch.bmm(
        a[:whole].reshape(count, _BLOCK, a.shape[1]).transpose(1, 2), b[:whole].reshape(count, _BLOCK, b.shape[1])
    )
    return blocks.sum(0) + a[whole:].T @ b[whole:]


def _gauge(parameters: Tensor) -> Tensor:
    """The mean intercept of three classes or more, 0-d: a term ½ R mean² in f makes it 0 and leaves all else alone."""
    return parameters[:, -1].mean() if len(parameters) > 1 else parameters.new_zeros(())
