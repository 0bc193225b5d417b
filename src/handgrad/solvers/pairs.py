"""The memory of L-BFGS: the latest steps, and how the gradient changed along each."""

from collections.abc import Callable

import torch
from torch import Tensor

SCALES = 0.01, 1.0  # how much less than the preconditioner says a step may be


class Pairs:
    """Up to m pairs s, y: a step, and J's change of gradient along it, which is known for any l2 once it is for one.

    Products with all pairs at once take the place of the usual two loops over them: with R the upper triangle of
    ``s_i.y_j``, oldest first, and M the preconditioner, the loops' coefficients solve ``R a = S g`` and ``R' d =
    diag(R) a - Y M (g - Y' a)``, and the step is ``M (g - Y' a) + S' d``. M is scaled by ``s.y / y.M y`` of the latest
    pair. L-BFGS: Nocedal and Wright, Numerical Optimization (2006), section 7.2.

    Args:
        size: m.
        penalized: (P,), 1 for the parameters that l2 counts, 0 for the others.

    Attributes:
        S, Y: (n, P), n <= m pairs, oldest first.
        l2: of which Y is.
    """

    def __init__(self, size: int, penalized: Tensor) -> None:
        self.size, self.penalized, self.l2 = size, penalized, 0.0
        # Twice as many rows as pairs: they move up one by one, and back to the start when they have come to the end.
        self.rows = penalized.new_empty(2, 2 * size, len(penalized))
        self.first = self.last = 0

    @property
    def S(self) -> Tensor:
        return self.rows[0, self.first : self.last]

    @property
    def Y(self) -> Tensor:
        return self.rows[1, self.first : self.last]

    def load(self, S: Tensor, Y: Tensor, l2: float) -> None:
        """Takes up pairs."""
        self.first, self.last, self.l2 = 0, len(S), l2
        self.rows[0, : len(S)], self.rows[1, : len(S)] = S, Y

    def begin(self, l2: float) -> None:
        """Goes over to another l2. Pairs along which the gradient does not rise are left out."""
        self.Y.addcmul_(self.S, self.penalized, value=l2 - self.l2)
        self.l2, self.SY = l2, self.S @ self.Y.t()
        rises = self.SY.diagonal() > 0
        if not rises.all():
            self.load(self.S[rises], self.Y[rises], l2)
            self.SY = self.SY[rises][:, rises]

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remembers a step (P,) and the change of J's gradient along it; the oldest of too many is forgotten."""
        if self.last - self.first == self.size:
            self.first += 1
            self.SY = self.SY[1:, 1:]
        if self.last == self.rows.shape[1]:
            kept = self.last - self.first
            self.rows[:, :kept] = self.rows[:, self.first :].clone()
            self.first, self.last = 0, kept
        old = self.SY
        self.SY = old.new_empty(len(old) + 1, len(old) + 1)
        self.SY[:-1, :-1], self.SY[:-1, -1], self.SY[-1, :-1] = old, self.S @ change, self.Y @ step
        self.SY[-1, -1] = step @ change
        self.rows[0, self.last], self.rows[1, self.last] = step, change
        self.last += 1

    def direction(self, gradient: Tensor, precondition: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the inverse Hessian's product with a gradient (P,), as the pairs have it.

        Args:
            precondition: gives the same where there are no pairs.
        """
        if self.first == self.last:
            return precondition(gradient)
        R, S, Y = self.SY.triu(), self.S, self.Y
        a = torch.linalg.solve_triangular(R, (S @ gradient)[:, None], upper=True)[:, 0]
        scale = (self.SY[-1, -1] / (Y[-1] @ precondition(Y[-1]))).clamp(*SCALES)
        step = scale * precondition(gradient - a @ Y)
        right = R.diagonal() * a - Y @ step
        d = torch.linalg.solve_triangular(R.t(), right[:, None], upper=False)[:, 0]
        return step + d @ S
