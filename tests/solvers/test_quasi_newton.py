"""What the metric of large problems keeps, and what it asks for."""

import math

import torch

from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.quasi_newton import PAIRS, QuasiNewtonMetric, most_pairs, passes_of_gram
from tests.solvers.optima import plain_one


def metric() -> QuasiNewtonMetric:
    given = plain_one(outputs=3)
    problem = CentredProblem(given.objective(), given.x, given.y, given.sample_weight, given.outputs)
    return QuasiNewtonMetric(problem)


def test_its_memory_is_of_a_fixed_shape_and_comes_back():
    first, second = metric(), metric()
    problem = first.problem
    empty = QuasiNewtonMetric.empty_memory(problem.outputs, len(problem.mean))
    second.load(empty)
    assert second.eigen is None
    first.begin(0.1)
    point = problem.null_model()
    spread = torch.ones(len(problem.target))
    first.refresh(point, 0.1, 0, spread, False)
    step = torch.randn(problem.outputs, len(problem.mean) + 1, generator=torch.Generator().manual_seed(0)).double()
    first.learn(step, 2 * step, curved=True)
    first.learn(step, -step, curved=False)
    memory = {name: tensor.clone() for name, tensor in empty.items()}
    first.save(memory)
    assert {name: tensor.shape for name, tensor in memory.items()} == {name: t.shape for name, t in empty.items()}
    second.load(memory)
    assert (len(second.pairs.S), second.draws, second.gram_at) == (1, 1, 0.1)
    for each in (first, second):
        each.begin(0.09)
        each.refresh(point, 0.09, 0, spread, False)
    assert torch.equal(first.direction(step, 0.09), second.direction(step, 0.09))


def test_a_gram_matrix_is_asked_for_at_first_and_where_it_takes_long():
    found = metric()
    assert found.gram_at == math.inf
    assert [i for i in range(40) if found.wants_gram(i, 1.0)] == [0, 8, 24]
    found.gram_at = 1.0
    assert not found.wants_gram(0, 0.5)
    assert found.wants_gram(0, 0.05)


def test_a_dear_gram_matrix_is_made_anew_only_where_as_many_passes_were_not_enough(monkeypatch):
    monkeypatch.setattr("handgrad.solvers.quasi_newton.DEAR", 0)
    found = metric()
    found.cost = 30
    assert [i for i in range(200) if found.wants_gram(i, 1.0)] == [0, 30, 90]
    found.gram_at = 1.0
    assert [i for i in range(200) if found.wants_gram(i, 1e-9)] == [30, 90]  # however far l2 has fallen
    point = found.problem.null_model()
    found.refresh(point, 1.0, 30, torch.ones(len(found.problem.target)), False)
    assert found.draws == 1
    before = found.precondition
    found.refresh(point, 1.0, 31, torch.ones(0), False)
    assert found.precondition is before


def test_what_a_gram_matrix_costs_is_counted_in_passes():
    """Of 2,000 samples, 400 features and 3 outputs: 1.024e9 operations, of which a pass has 9.6e6."""
    x, y = torch.zeros(2000, 400), torch.arange(2000) % 3
    problem = CentredProblem(plain_one(outputs=3).objective(), x, y, None, 3)
    assert passes_of_gram(problem) == 106


def test_steps_shift_no_outputs_together():
    found = metric()
    found.begin(0.1)
    problem = found.problem
    found.refresh(problem.null_model(), 0.1, 0, torch.ones(len(problem.target)), False)
    gradient = torch.randn(problem.outputs, len(problem.mean) + 1, generator=torch.Generator().manual_seed(0)).double()
    assert found.direction(gradient, 0.1).mean(0).abs().max() < 1e-12


def test_many_parameters_have_fewer_pairs():
    assert most_pairs(10, 512) == PAIRS
    assert 8 <= most_pairs(1000, 2048) < PAIRS
