"""SGD makes the updates of its formula, and those of torch's SGD on what autograd finds."""

import pytest
import torch

from handgrad.functions.objective import LOGISTIC, Objective
from handgrad.solvers.sgd import SGD
from tests.solvers.problems import PROBLEMS, Batches, assert_close, assert_trained_alone, copies, trained

LR, UPDATES = 0.1, 6
problems = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)
momenta = pytest.mark.parametrize("momentum", [0.0, 0.9])


@problems
@momenta
def test_the_formula(problem, momentum):
    state = trained(SGD(lr=LR, momentum=momentum), problem, UPDATES)
    weight, bias = problem.start()
    m_weight, m_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    for input, target, _ in problem.block(UPDATES):
        dweight, dbias = problem.derivative(weight, bias, input, target)
        m_weight, m_bias = momentum * m_weight + dweight, momentum * m_bias + dbias
        weight, bias = weight - LR * m_weight, bias - LR * m_bias
    buffers = {"weight.momentum_buffer": m_weight, "bias.momentum_buffer": m_bias} if momentum else {}
    assert_close(copies(state), {"weight": weight, "bias": bias} | buffers)


@problems
@momenta
def test_torchs_sgd_of_each_entry_alone(problem, momentum):
    state = trained(SGD(lr=LR, momentum=momentum), problem, UPDATES)
    assert_trained_alone(
        state, problem, UPDATES, lambda parameters: torch.optim.SGD(parameters, lr=LR, momentum=momentum)
    )


def test_one_update_in_numbers():
    """At the start 0 of a logistic model p is 1/2: dw = (-1/2 * 2 + 1/2 * 4) / 2, and db = (-1/2 + 1/2) / 2."""
    input, target = torch.tensor([[2.0], [4.0]]), torch.tensor([1, 0])
    objective, solver = Objective(LOGISTIC, torch.zeros(1)), SGD(lr=0.5)
    state = solver.init(torch.zeros(1, 1, 1), torch.zeros(1, 1))
    solver.step(objective, state, Batches([(input, target)]), torch.ones(1))
    assert state.weight.item() == -0.25
    assert state.bias.item() == 0


def test_without_momentum_nothing_is_remembered():
    weight, bias = torch.zeros(1, 2, 3), torch.zeros(1, 2)
    assert set(SGD(lr=LR).init(weight, bias).tensors()) == {"weight", "bias"}
