"""Newton's method for small problems: the whole Hessian, by its derivation."""

from dataclasses import replace

import torch
from torch import Tensor

from handgrad.errors import InputError
from handgrad.functions.objective import sigmoid_bend, softmax_probabilities
from handgrad.solvers.centred import CentredProblem, Point

LARGEST, MOST_WORK, MOST_NUMBERS = 1100, 1e9, 2**26  # parameters; operations for a Hessian; numbers p_k x
FAR_OFF = 1e6  # a mean over a standard deviation: at 1e8 half of a float64's digits are gone


class NewtonMetric:
    """Steps by the Hessian at the present point; its products are in float64, of features that are centred once.

    What ``at`` evaluates is compared with ``CentredProblem.at``, which every run proves, for the first optimum of a
    path.

    With p (N, K) and x (N, D + 1), centred and with a column of ones, the block of outputs k and k' is the mean of
    ``p_k ((k = k') - p_k') x x'``: ``Objective.hessian_vector_product`` for all directions at once. Sigmoids have the
    blocks k = k' alone, each a matrix by itself.
    """

    def __init__(self, problem: CentredProblem) -> None:
        self.problem = problem
        self.x = problem.rows(torch.arange(len(problem.target)))
        self.s = problem.weights(slice(None)) / problem.weight
        self.residual = problem.objective.loss.residual
        self.latest: tuple[Point, Tensor] | None = None  # with p - y there, (K, N)

    def check_digits(self) -> None:
        """Raises an InputError where a column lies so far from 0 that few digits tell its samples apart."""
        columns = self.x[:, :-1]
        means = self.problem.mean + columns.mean(0)
        far = means.abs() / columns.std(0, correction=0).clamp_min(1e-300)
        if far.max() > FAR_OFF:
            column = int(far.argmax())
            mean, times = means[column].item(), far[column].item()
            raise InputError(
                f"column {column} of the features: its mean, {mean:.3g}, is {times:.1e} times its standard deviation, "
                f"of which few digits are left; accepted with normalize=center"
            )

    @staticmethod
    def suits(samples: int, features: int, outputs: int, sigmoids: bool = False) -> bool:
        """Tells whether a problem is small enough."""
        columns, side = features + 1.0, 1 if sigmoids else outputs  # of a matrix, in blocks
        work = samples * columns**2 * outputs * (side + 1)
        numbers = max(samples * side * columns, outputs * side * columns**2)
        return side * columns <= LARGEST and work <= MOST_WORK and numbers <= MOST_NUMBERS

    def at(self, parameters: Tensor) -> Point:
        """Evaluates C and its gradient there."""
        self.problem.passes += 1
        assert self.residual is not None
        losses, residual = self.residual((parameters @ self.x.t())[None], self.problem.target)
        terms = torch.cat((losses @ self.s, ((residual[0] * self.s) @ self.x).flatten()))
        loss, gradient = self.problem.total(terms).split([1, parameters.numel()])
        point = Point(parameters, loss.item(), gradient.view_as(parameters))
        self.latest = point, residual[0]
        return point

    def exactly(self, parameters: Tensor) -> Point:
        """Evaluates in float64, with the coupling."""
        return self.with_coupling(self.at(parameters))

    def with_coupling(self, point: Point) -> Point:
        """Returns the point with its coupling, by another pass only where it is not the latest one."""
        if self.latest is None or self.latest[0] is not point:
            point = self.at(point.parameters)
        assert self.latest is not None
        A = self.problem.total(self._coupling(self.latest[1]))
        A = A if self.problem.sigmoids else self.problem.centre_outputs(A)
        found = replace(point, coupling=A, flat=self.problem.flat)
        self.latest = found, self.latest[1]
        return found

    def _coupling(self, residual: Tensor) -> Tensor:
        if self.problem.sigmoids:
            return torch.diag(sigmoid_bend(residual) @ self.s)
        p = softmax_probabilities(residual[None], self.problem.target)[0]
        return torch.diag(p @ self.s) - (p * self.s) @ p.t()

    def begin(self, l2: float) -> None:
        """Takes up an l2."""

    def load(self, memory: dict[str, Tensor]) -> None:
        """Newton has no memory."""

    def save(self, memory: dict[str, Tensor]) -> None:
        """Newton has no memory."""

    def wants_gram(self, iteration: int, l2: float) -> bool:
        return False

    def refresh(self, point: Point, l2: float, iteration: int, spread: Tensor, last: bool) -> None:
        """Factorizes the Hessian at a point; not where one step by that of the point before will do."""
        if last:
            return
        if self.latest is None or self.latest[0] is not point:
            self.at(point.parameters)
        H = self.problem.total(self.data_hessian())
        H.diagonal(dim1=1, dim2=2).view(-1, self.x.shape[1]).add_(l2 * self.problem.penalized)
        if not self.problem.sigmoids:  # a shift of all outputs alike bends nothing, and is never a part of a gradient
            K, columns = point.parameters.shape
            size = H[0].diagonal().view(K, columns).mean(0)
            H.view(K, columns, K, columns).diagonal(dim1=1, dim2=3).add_(size / K)
        self.scale = H.diagonal(dim1=1, dim2=2).clamp_min(1e-300).rsqrt()
        self.factor = torch.stack([factorized(each) for each in H * self.scale[:, :, None] * self.scale[:, None]])

    def data_hessian(self) -> Tensor:
        """Returns that of C at the latest point: (1, K (D + 1), K (D + 1)); of sigmoids (K, D + 1, D + 1)."""
        return self._sigmoid_hessians() if self.problem.sigmoids else self._softmax_hessian()[None]

    def _sigmoid_hessians(self) -> Tensor:
        assert self.latest is not None
        bend = sigmoid_bend(self.latest[1]) * self.s
        return torch.stack([self.x.t() @ (each[:, None] * self.x) for each in bend])

    def _softmax_hessian(self) -> Tensor:
        assert self.latest is not None
        point, residual = self.latest
        p, x = softmax_probabilities(residual[None], self.problem.target)[0].t(), self.x
        outputs, columns = point.parameters.shape
        scaled = (p[:, :, None] * x[:, None]).flatten(1)  # p_k x, output by output
        H = x.new_empty(outputs * columns, outputs * columns)
        for k, first in enumerate(range(0, outputs * columns, columns)):
            here, others = slice(first, first + columns), slice(first + columns, None)
            H[here, here] = x.t() @ ((self.s * (1 - p[:, k]))[:, None] * scaled[:, here])
            if k + 1 < outputs:
                blocks = (-self.s[:, None] * scaled[:, here]).t() @ scaled[:, others]
                H[here, others], H[others, here] = blocks, blocks.t()
        return H

    def direction(self, gradient: Tensor, l2: float) -> Tensor:
        """Returns the step for a gradient, both (K, D + 1)."""
        scaled = torch.cholesky_solve((gradient.view_as(self.scale) * self.scale)[:, :, None], self.factor)[:, :, 0]
        return self.problem.without_shift((scaled * self.scale).view_as(gradient))

    def learn(self, step: Tensor, change: Tensor, curved: bool) -> None:
        """Newton needs no memory."""


def factorized(H: Tensor) -> Tensor:
    """Returns the Cholesky factor of a matrix with a diagonal of ones, with as much more on it as it needs.

    Of a matrix with overflown numbers it returns one of ones: then no step is found, and the certificate says so.
    """
    if not H.isfinite().all():
        return torch.eye(len(H), dtype=H.dtype)
    more = 0.0
    while True:
        factor, info = torch.linalg.cholesky_ex(H)
        if not info:
            return factor
        H = H.clone()
        H.diagonal().add_(max(more, 1e-14))
        more = max(10 * more, 1e-14)
