"""The preconditioner is the inverse of the Kronecker product that it is called after, and its Gram matrix is fair."""

from dataclasses import replace

import torch

from handgrad.solvers.centred import CentredProblem, Point
from handgrad.solvers.kronecker import KroneckerPreconditioner, feature_gram
from tests.solvers.optima import plain_one

K, D, L2 = 3, 4, 0.3


def symmetric(size: int, seed: int) -> torch.Tensor:
    root = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.t()


def test_it_divides_by_the_product_and_l2():
    A, S = symmetric(K, 0), symmetric(D, 1)
    gradient = torch.randn(K, D, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = KroneckerPreconditioner(Point(gradient, 0.0, gradient, A), *torch.linalg.eigh(S), free=False)(gradient, L2)
    whole = torch.kron(A, S) + L2 * torch.eye(K * D, dtype=torch.float64)
    torch.testing.assert_close(found.flatten(), torch.linalg.solve(whole, gradient.flatten()))


def test_a_free_bias_has_no_penalty_and_flat_directions_are_left_alone():
    A = symmetric(K, 0)
    A = A - A.mean(0, keepdim=True)
    A = A - A.mean(1, keepdim=True)  # as softmax's: a shift of all outputs bends nothing
    gradient = torch.randn(K, D + 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    point = Point(gradient, 0.0, gradient, A)
    found = KroneckerPreconditioner(point, *torch.linalg.eigh(symmetric(D, 1)), free=True)(gradient, L2)
    assert found.shape == (K, D + 1)
    torch.testing.assert_close(found[:, -1], torch.linalg.pinv(A, rtol=1e-9) @ gradient[:, -1])


def test_all_samples_give_the_gram_matrix_itself():
    given = plain_one(outputs=3)
    problem = CentredProblem(given.objective(), given.x, given.y, None, given.outputs)
    x = problem.rows(torch.arange(len(given.y)))[:, :-1]
    spread = torch.ones(len(given.y))
    found = feature_gram(problem, spread, rows=10_000, seed=0)
    torch.testing.assert_close(found, x.t() @ x / len(x))
    spread[: len(spread) // 2] = 0  # what bends nothing is not drawn
    half = x[len(x) // 2 :]
    torch.testing.assert_close(feature_gram(problem, spread, rows=10_000, seed=0), half.t() @ half / len(half))


def test_more_samples_than_can_be_drawn_from_are_thinned_out(monkeypatch):
    given = plain_one(outputs=3)
    problem = CentredProblem(given.objective(), given.x, given.y, None, given.outputs)
    monkeypatch.setattr("handgrad.solvers.kronecker.MOST_CATEGORIES", len(given.y) // 2)
    x = problem.rows(torch.arange(0, len(given.y), 2))[:, :-1]
    found = feature_gram(problem, torch.ones(len(given.y)), rows=10_000, seed=0)
    torch.testing.assert_close(found, x.t() @ x / len(x))


def test_each_of_several_processes_draws_its_part_of_the_samples():
    """Two that have the same samples, so that what all add up is twice what one has."""
    given = plain_one(outputs=3)
    objective = replace(given.objective(), total=lambda tensor: tensor * 2)
    problem = CentredProblem(objective, given.x, given.y, None, given.outputs)
    assert problem.processes == 2
    drawn = []
    problem.rows = lambda index, dtype: drawn.append(len(index)) or given.x[index].to(dtype)
    feature_gram(problem, torch.ones(len(given.y)), rows=11, seed=0)
    assert drawn == [6]
