"""On centred features the objective is the same, its derivative that of the parameters there, and nothing is copied."""

import pytest
import torch

from handgrad.functions.objective import MULTILABEL, Objective
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.kronecker import KroneckerPreconditioner
from tests.solvers.optima import drawn, is_plain

SEEDS = [3, 4, 5, 8, 11, 20]
PLAIN = next(seed for seed in range(100) if is_plain(drawn(seed)) and drawn(seed).outputs == 3)


def problem_and_parameters(seed: int):
    drawn_problem = drawn(seed)
    x, y, s, *_ = drawn_problem
    problem = CentredProblem(drawn_problem.objective(), x, y, s, drawn_problem.outputs)
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(drawn_problem.outputs, x.shape[1] + 1, generator=generator, dtype=torch.float64)
    return drawn_problem, problem, parameters / (1 + x.abs().mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_value_and_gradient_are_those_of_the_objective(seed):
    given, problem, parameters = problem_and_parameters(seed)
    parameters.requires_grad_()
    weight, bias = problem.uncentred(parameters)
    expected = given.value(torch.cat((weight, bias[:, None]), 1))
    (gradient,) = torch.autograd.grad(expected, parameters)
    point = problem.at(parameters.detach())
    assert problem.value(point, given.l2) == pytest.approx(expected.item(), rel=1e-12)
    scale = gradient.abs().max() + 1e-300
    torch.testing.assert_close(problem.gradient(point, given.l2) / scale, gradient / scale, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_parameters_survive_being_written_down(seed):
    _, problem, parameters = problem_and_parameters(seed)
    weight, bias = problem.uncentred(parameters)
    torch.testing.assert_close(problem.centred(weight, bias), parameters, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_bias_step_ends_at_the_best_bias(seed):
    """Twice is enough from a start near it; what a shift of all outputs would do is left out."""
    given, problem, _ = problem_and_parameters(seed)
    if given.penalize_bias:
        return
    point = problem.at(problem.start() + 0.01, coupling=True)
    for _ in range(4):
        point = problem.at(point.with_bias_step(), coupling=True)
    assert point.gradient[:, -1].abs().max() < 1e-12


@pytest.mark.parametrize("fit_bias", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_null_model_is_what_a_pass_finds_there(seed, fit_bias):
    """The sums that it is made of are those of the samples, and no pass is made."""
    given, problem, _ = problem_and_parameters(seed)
    problem = CentredProblem(given.objective(), given.x, given.y, given.sample_weight, given.outputs, fit_bias)
    found = problem.null_model()
    assert problem.passes == 0
    passed = problem.at(problem.start(), coupling=True)
    assert torch.equal(found.parameters, passed.parameters)
    assert found.loss == pytest.approx(passed.loss, rel=1e-14)
    scale = problem.mean_square**0.5 * 1e-14
    torch.testing.assert_close(found.gradient, passed.gradient, rtol=0, atol=scale)
    torch.testing.assert_close(found.coupling, passed.coupling, rtol=1e-12, atol=1e-16)


def test_the_start_predicts_the_shares_of_the_classes():
    given, problem, _ = problem_and_parameters(PLAIN)
    assert problem.null_model().gradient[:, -1].abs().max() < 1e-14
    assert problem.class_shares.sum().item() == pytest.approx(1)
    assert given.outputs > 1


def test_float32_products_are_of_parameters_that_float32_has():
    _, problem, parameters = problem_and_parameters(PLAIN)
    point = problem.at(parameters, torch.float32)
    weight, _ = problem.uncentred(point.parameters)
    assert torch.equal(weight, weight.float().double())
    assert point.gradient.dtype == torch.float64


def test_rows_are_centred_and_end_with_a_one():
    given, problem, _ = problem_and_parameters(PLAIN)
    rows = problem.rows(torch.arange(len(given.y)))
    assert (rows[:, -1] == 1).all()
    s = problem.weights(slice(None))
    assert ((s @ rows[:, :-1]).abs() / (s @ given.x.abs() + 1e-300)).max() < 1e-12


def test_a_rare_label_has_its_step_of_the_bias():
    """Its curvature is 6e-8 of the other one's, where a softmax would be flat."""
    x, y = torch.zeros(4, 1, dtype=torch.float64), torch.tensor([[1, 0], [0, 0], [1, 0], [0, 1]])
    weight = torch.tensor([1, 1, 1, 3e-8], dtype=torch.float64)
    problem = CentredProblem(Objective(MULTILABEL, torch.ones(1).double()), x, y, weight, 2)
    assert problem.class_shares.tolist() == pytest.approx([2 / 3, 1e-8])
    assert torch.sigmoid(problem.start()[:, -1]).tolist() == pytest.approx([2 / 3, 1e-8])
    point = problem.at(torch.tensor([[0, 0], [0, -18]]).double(), coupling=True)
    p = torch.sigmoid(torch.tensor(-18.0).double()).item()
    assert point.bias_step.tolist() == pytest.approx([(2 / 3 - 1 / 2) * 4, (1e-8 - p) / p], rel=1e-6)
    preconditioner = KroneckerPreconditioner(point, *torch.linalg.eigh(torch.eye(1).double()), True)
    assert torch.allclose(preconditioner(point.gradient, 1.0)[:, -1], -point.bias_step)
