"""Newton's method for small problems: the whole Hessian, by its derivation."""

import torch
from torch import Tensor

from handgrad.solvers.centred import CentredProblem, Point, without_shift

LARGEST, MOST_WORK, MOST_NUMBERS = 1100, 4e9, 2**26  # parameters; operations for a Hessian; numbers p_k x


class NewtonMetric:
    """Steps by the Hessian at the present point; its products are in float64.

    With p (N, K) and x (N, D + 1), centred and with a column of ones, the block of outputs k and k' is the mean of
    ``p_k ((k = k') - p_k') x x'``: ``Objective.hessian_vector_product`` for all directions at once.
    """

    def __init__(self, problem: CentredProblem) -> None:
        self.problem = problem
        self.x = problem.rows(torch.arange(len(problem.target)))
        self.s = problem.weights(slice(None))

    @staticmethod
    def suits(samples: int, features: int, outputs: int) -> bool:
        """Tells whether a problem is small enough."""
        work = samples * (features + 1.0) ** 2 * outputs * (outputs + 1)
        return (
            outputs * (features + 1) <= LARGEST
            and work <= MOST_WORK
            and samples * outputs * (features + 1) <= MOST_NUMBERS
        )

    def begin(self, l2: float) -> None:
        """Takes up an l2."""

    def load(self, memory: dict[str, Tensor]) -> None:
        """Newton has no memory."""

    def save(self, memory: dict[str, Tensor]) -> None:
        """Newton has no memory."""

    def wants_gram(self, iteration: int, l2: float) -> bool:
        return False

    def refresh(self, point: Point, l2: float, iteration: int, spread: Tensor) -> None:
        """Factorizes the Hessian at a point."""
        H = self.problem.total(self.data_hessian(point.parameters)) / self.problem.weight
        columns = self.x.shape[1]
        penalty = (l2 * self.problem.penalized).repeat(len(point.parameters))
        H.diagonal().add_(penalty)
        if len(point.parameters) > 1:  # a shift of all outputs alike bends nothing, and is never a part of a gradient
            K = len(point.parameters)
            size = H.diagonal().view(K, columns).mean(0)
            H.view(K, columns, K, columns).diagonal(dim1=1, dim2=3).add_(size / K)
        self.scale = H.diagonal().clamp_min(1e-300).rsqrt()
        self.factor = factorized(H * self.scale[:, None] * self.scale)

    def data_hessian(self, parameters: Tensor) -> Tensor:
        """Returns the sum over samples, (K (D + 1), K (D + 1))."""
        p, x = self.problem.probabilities(self.x @ parameters.t()), self.x
        outputs, columns = parameters.shape
        scaled = (p[:, :, None] * x[:, None]).flatten(1)  # p_k x, output by output
        H = x.new_zeros(outputs * columns, outputs * columns)
        for first in range(0, outputs * columns, columns):
            here = slice(first, first + columns)
            weighted = self.s[:, None] * scaled[:, here]
            blocks = -weighted.t() @ scaled[:, first:]
            H[here, first:], H[first:, here] = blocks, blocks.t()
            H[here, here] += weighted.t() @ x
        return H

    def direction(self, gradient: Tensor, l2: float) -> Tensor:
        """Returns the step for a gradient, both (K, D + 1)."""
        scaled = torch.cholesky_solve((gradient.flatten() * self.scale)[:, None], self.factor)[:, 0]
        return without_shift((scaled * self.scale).view_as(gradient))

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
