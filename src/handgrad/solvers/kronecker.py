"""What the Hessian is like: a Kronecker product of how outputs and how features bend the loss."""

import math

import torch
from torch import Tensor

from handgrad.solvers.centred import CentredProblem, Point

MOST_CATEGORIES = 2**24  # that torch.multinomial takes


class KroneckerPreconditioner:
    """Divides by ``A x S + l2``, with A = mean of dp/dz (K, K) and S the weighted mean of x x' (D, D).

    The Hessian is the mean of the samples' own products ``dp/dz x (x x')``; this is the product of two means.

    Args:
        point: whose coupling A is; s, Q: eigenvalues and eigenvectors of S, that of the centred features.
        free: whether the bias has a column of its own, without penalty; else it is one of the features of S.
    """

    def __init__(self, point: Point, s: Tensor, Q: Tensor, free: bool) -> None:
        a, self.U = point.bends
        self.point, self.a, self.s, self.Q, self.free = point, a.clamp_min(0), s.clamp_min(0), Q, free

    def __call__(self, gradient: Tensor, l2: float) -> Tensor:
        """Returns the step for a gradient, both (K, D + 1)."""
        features = gradient[:, :-1] if self.free else gradient
        scaled = self.U.t() @ features @ self.Q / (torch.outer(self.a, self.s) + l2).clamp_min(1e-300)
        step = self.U @ scaled @ self.Q.t()
        return torch.cat((step, -self.point.bias_step_for(gradient[:, -1])[:, None]), 1) if self.free else step


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
