"""What the Hessian is like: a Kronecker product of how outputs and how features bend the loss."""

import math

import torch
from torch import Tensor

from handgrad.solvers.centred import FLAT, CentredProblem

MOST_CATEGORIES = 2**24  # that torch.multinomial takes


class KroneckerPreconditioner:
    """Divides by ``A x S + l2``, with A = mean of dp/dz (K, K) and S the weighted mean of x x' (D, D).

    The Hessian is the mean of the samples' own products ``dp/dz x (x x')``; this is the product of two means.

    Args:
        A: of the outputs, S: of the centred features, both symmetric.
        flat: the share of the largest curvature of the outputs below which the bias does not move.
        free: whether the bias has a column of its own, without penalty; else it is one of the features of S.
    """

    def __init__(self, A: Tensor, s: Tensor, Q: Tensor, free: bool, flat: float = FLAT) -> None:
        self.a, self.U = torch.linalg.eigh(A)
        self.s, self.Q = s, Q
        self.a, self.s, self.free = self.a.clamp_min(0), self.s.clamp_min(0), free
        # A shift of all softmax's outputs alike bends nothing; rounded, its curvature of 0 would be divided by.
        self.bent = self.a > flat * self.a.max()

    def bias_step(self, gradient: Tensor) -> Tensor:
        """Returns the step of a free bias for its gradient, both (K,)."""
        rotated = self.U.t() @ gradient
        return self.U @ torch.where(self.bent, rotated / self.a.clamp_min(1e-300), 0.0)

    def __call__(self, gradient: Tensor, l2: float) -> Tensor:
        """Returns the step for a gradient, both (K, D + 1)."""
        features = gradient[:, :-1] if self.free else gradient
        scaled = self.U.t() @ features @ self.Q / (torch.outer(self.a, self.s) + l2).clamp_min(1e-300)
        step = self.U @ scaled @ self.Q.t()
        return torch.cat((step, self.bias_step(gradient[:, -1])[:, None]), 1) if self.free else step


def feature_gram(
    problem: CentredProblem, spread: Tensor, rows: int, seed: int, dtype: torch.dtype = torch.float64
) -> Tensor:
    """Returns the mean of x x' over ``rows`` samples, drawn by how much they bend the loss; (D, D), or D + 1 each.

    Of several processes each draws its part, among its own samples.

    Fewer than all are enough to precondition with, and evenly drawn ones are not: near the optimum of a small l2 most
    samples bend nothing. Where numbers have overflown it is 0.

    Args:
        dtype: of the product.
    """
    generator = torch.Generator().manual_seed(seed)
    chances = (spread.double().clamp_min(0) * problem.weights(slice(None))).cpu()  # so that every device draws alike
    every = -(-len(chances) // MOST_CATEGORIES)  # of more samples, so many that torch can draw from
    chances = chances[::every]
    rows = min(math.ceil(rows / problem.processes), int((chances > 0).sum()))
    index = torch.multinomial(chances, rows, generator=generator).sort().values * every if rows else torch.arange(0)
    x = problem.rows(index, dtype)
    x = x[:, :-1] if problem.free else x
    gram = problem.total((x.t() @ x).double().cpu()) / max(problem.total(torch.tensor([float(rows)])).item(), 1.0)
    return gram if gram.isfinite().all() else torch.zeros_like(gram)
