"""The loop without Lightning: from parameters and blocks to where a solver leads."""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor

from handgrad.functions.objective import Objective
from handgrad.solvers.protocol import Block, Solver, State


class Solution(NamedTuple):
    """Where a solver ended: its state with the parameters, and which entries it says are done, ``(L,)``."""

    state: State
    done: Tensor


def solve(solver: Solver, objective: Objective, weight: Tensor, bias: Tensor, blocks: Iterable[Block]) -> Solution:
    """Takes a step for each block until all entries are done or no block is left.

    Args:
        weight, bias: where it begins, ``(L, K, D)`` and ``(L, K)``; they are not changed.
    """
    state = solver.init(weight.detach().clone(), bias.detach().clone())
    done = solver.done(state)
    for block in () if done.all() else blocks:
        solver.step(objective, state, block, (~done).to(state.weight.dtype))
        done = solver.done(state)
        if done.all():
            break
    return Solution(state, done)
