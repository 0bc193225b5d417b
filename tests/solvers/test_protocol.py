"""What every solver keeps to, on every problem. A new solver is a line in ``SOLVERS``."""

import io
from dataclasses import replace

import pytest
import torch

from handgrad.solvers.protocol import Solver, copy_entries
from tests.solvers.problems import PROBLEMS, SOLVERS, Batches, Problem, assert_close, copies, ones, trained


@pytest.fixture(params=SOLVERS)
def solver(request) -> Solver:
    return SOLVERS[request.param]


@pytest.fixture(params=PROBLEMS)
def problem(request) -> Problem:
    return PROBLEMS[request.param]


def test_init_begins_where_it_is_told(solver, problem):
    weight, bias = problem.start()
    state = solver.init(weight, bias)
    assert torch.equal(weight, problem.start()[0])
    assert torch.equal(bias, problem.start()[1])
    tensors = state.tensors()
    assert tensors["weight"].data_ptr() == state.weight.data_ptr() == weight.data_ptr()
    assert tensors["bias"].data_ptr() == state.bias.data_ptr() == bias.data_ptr()
    assert {len(tensor) for tensor in tensors.values() if tensor.dim()} == {len(problem.l2)}


def test_a_state_has_the_same_tensors_at_any_time(solver, problem):
    state = solver.init(*problem.start())
    before, values = state.tensors(), copies(state)
    for seed in range(2):
        solver.step(problem.objective, state, problem.block(2, seed), ones(problem))
        after = state.tensors()
        assert list(after) == list(before)
        assert all(after[name] is before[name] for name in before)
    assert not any(torch.equal(after[name], values[name]) for name in before)  # and each of them moves


def test_a_step_returns_the_losses_before_its_updates(solver, problem):
    block, state, twin = problem.block(4), trained(solver, problem), trained(solver, problem)
    losses = solver.step(problem.objective, state, block, ones(problem)).curves["loss"]
    assert losses.shape == (4, len(problem.l2))
    assert losses.dtype == torch.float64
    for found, (input, target, _) in zip(losses, block, strict=True):
        plain = [problem.plain_loss(*entry, input, target) for entry in zip(twin.weight, twin.bias, strict=True)]
        torch.testing.assert_close(found, torch.stack(plain), rtol=1e-12, atol=1e-12)
        solver.step(problem.objective, twin, Batches([(input, target)]), ones(problem))
    assert_close(copies(state), copies(twin))


@pytest.mark.parametrize("size", [1, 2])
def test_parts_of_a_path_are_the_path(solver, problem, size):
    rows = [slice(first, first + size) for first in range(0, len(problem.l2), size)]
    whole, together = trained(solver, problem), solver.init(*problem.start(seed=1))
    active = ones(problem)
    active[-1] = 0
    for part in rows:
        state = solver.init(torch.zeros_like(whole.weight[part]), torch.zeros_like(whole.bias[part]))
        copy_entries(whole, part, state, slice(None))
        objective = replace(problem.objective, l2=problem.objective.l2[part])
        for seed in (1, 2):
            solver.step(objective, state, problem.block(2, seed), active[part])
        copy_entries(state, slice(None), together, part)
    for seed in (1, 2):
        solver.step(problem.objective, whole, problem.block(2, seed), active)
    assert_close(copies(together), copies(whole))


@pytest.mark.parametrize("stopped", [0, -1])
def test_entries_that_have_stopped_stay_and_leave_the_others_alone(solver, problem, stopped):
    state, twin = trained(solver, problem), trained(solver, problem)
    active = ones(problem)
    active[stopped] = 0
    before, block = copies(state), problem.block(3, seed=1)
    losses = solver.step(problem.objective, state, block, active).curves["loss"]
    solver.step(problem.objective, twin, block, ones(problem))
    for name in ("weight", "bias"):
        found, unstopped = copies(state)[name], copies(twin)[name]
        assert torch.equal(found[stopped], before[name][stopped])
        assert not (unstopped == before[name]).any()
        torch.testing.assert_close(found[active > 0], unstopped[active > 0], rtol=1e-12, atol=1e-12)
    (batch, *_) = block
    plain = problem.plain_loss(before["weight"][stopped], before["bias"][stopped], *batch[:2])
    torch.testing.assert_close(losses[0, stopped], plain, rtol=1e-12, atol=1e-12)  # still measured


def test_a_saved_state_goes_on_bit_for_bit(solver, problem):
    state, file = trained(solver, problem), io.BytesIO()
    torch.save(state.tensors(), file)
    file.seek(0)
    fresh = solver.init(*problem.start(seed=1))
    for name, tensor in torch.load(file, weights_only=True).items():
        fresh.tensors()[name].copy_(tensor)
    for seed in (1, 2):
        block = problem.block(2, seed)
        ours, theirs = (
            solver.step(problem.objective, each, block, ones(problem)).curves["loss"] for each in (state, fresh)
        )
        assert torch.equal(ours, theirs)
    found, expected = copies(fresh), copies(state)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_done_is_told_of_each_entry(solver, problem):
    state = solver.init(*problem.start())
    for seed in range(2):
        done = solver.done(state)
        assert done.shape == (len(problem.l2),)
        assert done.dtype == torch.bool
        assert not done.any()
        solver.step(problem.objective, state, problem.block(2, seed), ones(problem))


def test_a_solver_itself_remembers_nothing(solver, problem):
    alone = trained(solver, problem, updates=2)
    first, second = solver.init(*problem.start()), solver.init(*problem.start(seed=1))
    for batch in problem.block(2):
        for state in (first, second):
            solver.step(problem.objective, state, Batches([batch[:2]]), ones(problem))
    assert all(torch.equal(tensor, copies(alone)[name]) for name, tensor in copies(first).items())


class Lettered:
    """A state of four entries with a count that they share."""

    def __init__(self, first: float, count: int) -> None:
        self.weight = torch.arange(first, first + 8).view(4, 2, 1).requires_grad_()
        self.bias = -self.weight.detach()[:, :, 0]
        self.count = torch.tensor(count)

    def tensors(self):
        return {"weight": self.weight, "bias": self.bias, "count": self.count}


def test_copy_entries_copies_rows_to_rows_and_what_is_shared():
    source, target = Lettered(0.0, 5), Lettered(100.0, 6)
    copy_entries(source, slice(0, 2), target, slice(1, 3))
    assert target.weight.flatten().tolist() == [100, 101, 0, 1, 2, 3, 106, 107]
    assert target.bias.flatten().tolist() == [-100, -101, 0, -1, -2, -3, -106, -107]
    assert target.count.item() == 5
    assert torch.equal(source.weight, Lettered(0.0, 5).weight)
    assert source.count.item() == 5
