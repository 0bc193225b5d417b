"""The loop without Lightning: from parameters and blocks to where a solver leads."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch import Tensor

from handgrad.functions.objective import Objective
from handgrad.solvers.protocol import Block, Solver, State


class Solution(NamedTuple):
    """Where a solver ended: its state with the parameters, and which entries it says are done, ``(L,)``."""

    state: State
    done: Tensor


class WholeSet:
    """A block: a whole set of samples as one mini-batch, for solvers that ask for it.

    Args:
        input: (N, D), a tensor or what reads rows as one; target: (N,); sample_weight: (N,) or None.
    """

    first, share = 0, 1.0

    def __init__(self, input: Any, target: Tensor, sample_weight: Tensor | None) -> None:
        self.batch = input, target, sample_weight

    def __len__(self) -> int:
        """Number of mini-batches."""
        return 1

    def __iter__(self) -> Iterator[tuple[Any, Tensor, Tensor | None]]:
        yield self.batch


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
