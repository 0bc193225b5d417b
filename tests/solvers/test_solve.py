"""The loop without Lightning: it ends at the optimum, where the solver says so, or with the last block."""

from dataclasses import dataclass, field, replace

import pytest
import torch

from handgrad.solvers.adam import Adam
from handgrad.solvers.protocol import Progress
from handgrad.solvers.sgd import SGD
from handgrad.solvers.solve import solve
from tests.solvers.problems import PROBLEMS

PATH = replace(PROBLEMS["softmax-3-l2-bias"], l2=(0.1, 0.3, 1.0))
ALONE = PROBLEMS["logistic-1-l2"]


@pytest.mark.parametrize("problem", [PATH, ALONE], ids=["path", "alone"])
@pytest.mark.parametrize("solver", [SGD(lr=0.5, momentum=0.5), Adam(lr=0.02)], ids=["sgd", "adam"])
@pytest.mark.slow
def test_it_reaches_the_optimum_and_leaves_the_start(problem, solver):
    weight, bias = (parameter.requires_grad_() for parameter in problem.start())
    block = problem.block(1)
    found = solve(solver, problem.objective, weight, bias, [block] * 1000)
    gradient = problem.derivative(found.state.weight, found.state.bias, *block.batches[0])
    assert max(part.norm().item() for part in gradient) < 1e-6
    assert not found.done.any()
    for given, start in zip((weight, bias), problem.start(), strict=True):
        assert torch.equal(given, start)
        assert given.grad is None


@dataclass
class Counted:
    """The state of a solver that counts."""

    weight: torch.Tensor
    bias: torch.Tensor
    steps: torch.Tensor

    def tensors(self):
        return {"weight": self.weight, "bias": self.bias, "steps": self.steps}


@dataclass(frozen=True)
class Counting:
    """Adds 1 to all weights of active entries for each block; entry l is done after ``needed[l]`` blocks."""

    needed: tuple[int, ...]
    seen: list[tuple[int, list[float]]] = field(default_factory=list)

    def init(self, weight, bias):
        return Counted(weight, bias, torch.zeros(len(weight)))

    def step(self, objective, state, block, active):
        self.seen.append((block, active.tolist()))
        assert active.dtype == state.weight.dtype
        state.weight += active[:, None, None]
        state.steps += active
        return Progress({}, active.long(), active > 0)

    def done(self, state):
        return state.steps >= torch.tensor(self.needed)


@pytest.fixture
def start():
    return torch.zeros(3, 1, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)


def test_it_stops_when_all_entries_are_done(start):
    solver, blocks = Counting((1, 3, 2)), iter(range(100))
    found = solve(solver, PROBLEMS["logistic-3-l2"].objective, *start, blocks)
    assert solver.seen == [(0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 1, 0])]
    assert found.state.weight[:, 0, 0].tolist() == [1, 3, 2]  # each its own number of steps, to the bit
    assert found.done.tolist() == [True] * 3
    assert next(blocks) == 3  # not one block more is asked for


def test_it_stops_when_no_block_is_left(start):
    found = solve(Counting((1, 3, 2)), PROBLEMS["logistic-3-l2"].objective, *start, range(2))
    assert found.done.tolist() == [True, False, True]
    assert found.state.weight[:, 0, 0].tolist() == [1, 2, 2]
    assert not start[0].any()


def test_without_blocks_it_is_the_start(start):
    weight, bias = start[0] + 2, start[1] - 1
    found = solve(Counting((1, 1, 1)), PROBLEMS["logistic-3-l2"].objective, weight, bias, ())
    assert torch.equal(found.state.weight, weight)
    assert torch.equal(found.state.bias, bias)
    assert found.state.weight.data_ptr() != weight.data_ptr()
    assert not found.done.any()
