"""The walk through a block: one gradient of the objective's per mini-batch, and stopped entries that stay."""

from dataclasses import replace

import pytest
import torch

from handgrad.functions.objective import Objective
from handgrad.solvers.first_order import unchanged
from handgrad.solvers.sgd import SGD
from tests.solvers.problems import PROBLEMS, SOLVERS, Batches, copies, ones, trained

PROBLEM = PROBLEMS["softmax-3-l2-bias"]
solvers = pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)


@pytest.fixture
def calls(monkeypatch) -> list[dict]:
    """What the objective's gradient is asked for; its value and its curvature are not to be asked for."""
    calls: list[dict] = []
    gradient = Objective.gradient

    def watched(self, weight, bias, input, target, sample_weight, **how):
        calls.append({"input": input, "target": target, **how})
        return gradient(self, weight, bias, input, target, sample_weight, **how)

    monkeypatch.setattr(Objective, "gradient", watched)
    for name in ("value", "hessian_vector_product", "penalty"):
        monkeypatch.delattr(Objective, name)
    return calls


@solvers
def test_each_mini_batch_asks_once_for_the_gradient(solver, calls):
    block, active = PROBLEM.block(5), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    state = solver.init(*PROBLEM.start())
    solver.step(PROBLEM.objective, state, block, active)
    assert len(calls) == 5
    for call, (input, target, _) in zip(calls, block, strict=True):
        assert call["input"] is input
        assert call["target"] is target
        assert call["active"] is active
        assert call["share"] is None


def test_the_gradient_comes_from_the_objective_alone(monkeypatch):
    """Whatever it says is gone along, and its loss is what is returned."""
    told = torch.arange(3, dtype=torch.float64)

    def gradient(self, weight, bias, input, target, sample_weight, *, active, share):
        return told + len(target), torch.full_like(weight, 2.0), torch.full_like(bias, -3.0)

    monkeypatch.setattr(Objective, "gradient", gradient)
    weight, bias = PROBLEM.start()
    state = SGD(lr=0.5).init(weight.clone(), bias.clone())
    losses = SGD(lr=0.5).step(PROBLEM.objective, state, PROBLEM.block(4), ones(PROBLEM)).curves["loss"]
    torch.testing.assert_close(state.weight, weight - 4)
    torch.testing.assert_close(state.bias, bias + 6)
    assert losses.tolist() == [[8, 9, 10]] * 4


@pytest.mark.parametrize("name", ["momentum", "adam"])
@pytest.mark.parametrize("stopped", [[0], [2], [0, 1], [0, 1, 2]])
def test_what_an_optimizer_remembers_does_not_move_stopped_entries(name, stopped):
    solver, problem = SOLVERS[name], PROBLEM
    state, active = trained(solver, problem), ones(problem)
    active[stopped] = 0
    before = copies(state)
    for seed in (1, 2):
        solver.step(problem.objective, state, problem.block(3, seed), active)
    running = active > 0
    for parameter in ("weight", "bias"):
        moment = "momentum_buffer" if name == "momentum" else "exp_avg"
        assert (before[f"{parameter}.{moment}"] != 0).all(), "the test wants entries that would move"
        after = copies(state)[parameter]
        assert torch.equal(after[stopped], before[parameter][stopped])
        assert (after[running] != before[parameter][running]).all()


def test_unchanged_keeps_rows_and_no_others():
    parameters = [torch.zeros(3, 2), torch.zeros(3, requires_grad=True)]
    with unchanged(parameters, torch.tensor([False, True, False])):
        for parameter in parameters:
            parameter.data += 1
    assert parameters[0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert parameters[1].tolist() == [1, 0, 1]
    with unchanged(parameters, torch.zeros(3, dtype=torch.bool)):
        parameters[0] += 1
    assert parameters[0].tolist() == [[2, 2], [1, 1], [2, 2]]


@solvers
@pytest.mark.parametrize("cut", [1, 3, 7])
def test_the_shares_of_two_processes_make_the_update_of_the_whole(solver, cut):
    """The first process's sum is kept for the second, which adds its own to it."""
    ((input, target, _),) = PROBLEM.block(1)
    whole = solver.init(*PROBLEM.start())
    expected = solver.step(PROBLEM.objective, whole, Batches([(input, target)]), ones(PROBLEM)).curves["loss"]
    sums = []

    def total(tensor):
        sums.append(tensor.clone())
        return sum(sums)

    objective = replace(PROBLEM.objective, total=total)
    for rows in (slice(0, cut), slice(cut, None)):
        state = solver.init(*PROBLEM.start())
        part = Batches([(input[rows], target[rows])], share=len(target[rows]) / len(target))
        losses = solver.step(objective, state, part, ones(PROBLEM)).curves["loss"]
    assert len(sums) == 2
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state.weight, whole.weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state.bias, whole.bias, rtol=1e-10, atol=1e-12)


@solvers
def test_the_memory_at_the_start_is_what_torch_makes_at_its_first_update(solver):
    parameter = torch.randn(2, 3, dtype=torch.float64)
    optimizer = solver.optimizer([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    theirs = {name: value for name, value in optimizer.state[parameter].items() if value is not None}
    ours = solver.memory(parameter)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert (tensor.shape, tensor.dtype) == (theirs[name].shape, theirs[name].dtype)
        assert not tensor.any()


@solvers
def test_inputs_of_another_precision_are_taken(solver):
    """The data stay in float32; the parameters decide in what is computed."""
    single = Batches([(input.float(), target) for input, target, _ in PROBLEM.block(3)])
    double = Batches([(input.double(), target) for input, target, _ in single])
    states = [solver.init(*PROBLEM.start()) for _ in range(2)]
    for state, block in zip(states, (single, double), strict=True):
        solver.step(PROBLEM.objective, state, block, ones(PROBLEM))
    assert torch.equal(states[0].weight, states[1].weight)
    assert states[0].weight.dtype == torch.float64
