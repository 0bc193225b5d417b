"""What every solver is: how it starts, what one step is, and when an entry of the path is done."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from handgrad.functions.objective import Objective


class Block(Protocol):
    """What one step works on: mini-batches, one after the other: ``input (B, D)``, ``target (B,)`` and ``sample_weight
    (B,)`` or None.

    The whole training set, for solvers that ask for it, may be on disk: then slices of ``input`` and its
    ``index_select`` read the rows that they name.

    Attributes:
        first: index of the update that its first mini-batch makes, counted from 0.
        share: of each mini-batch's samples that this process sees, 1 when it is the only one.
    """

    first: int
    share: float

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Tensor, Tensor | None]]: ...


class Progress(NamedTuple):
    """What a step did.

    Attributes:
        curves: numbers before each update, and perhaps after the last, by name, each (B, L), in float64; of no meaning
            for an entry that did not move.
        made: (L,), int64: how many updates each entry made.
        moved: (L,), whether an entry was worked on.
    """

    curves: dict[str, Tensor]
    made: Tensor
    moved: Tensor


class State(Protocol):
    """What goes on from one step to the next: the parameters, and what the solver remembers of them.

    Attributes:
        weight, bias: ``(L, K, D)`` and ``(L, K)``; a step changes them in place.
    """

    weight: Tensor
    bias: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Returns everything by name, the same tensors and names at any time.

        Those that have axes begin with the path axis, so that a state can be cut into parts of the path (see
        ``copy_entries``); those without are shared by all its entries.
        """
        ...


class Solver(Protocol):
    """From an objective to an optimum; an object holds the settings and nothing that changes.

    Attributes:
        one_at_a_time: whether a step looks at the whole training set, as one mini-batch, for one entry of the path.
    """

    one_at_a_time: bool

    def init(self, weight: Tensor, bias: Tensor) -> State:
        """Returns the state that begins at ``weight (L, K, D)`` and ``bias (L, K)``, which it goes on to use."""
        ...

    def step(self, objective: Objective, state: State, block: Block, active: Tensor) -> Progress:
        """Goes through ``block``; entries whose ``active (L,)`` is 0 keep their parameters."""
        ...

    def done(self, state: State) -> Tensor:
        """Returns ``(L,)``, true for the entries at which the solver has nothing more to do."""
        ...

    def report(self, state: State) -> dict[str, Tensor]:
        """Returns what is known of each entry, by the names of the results, each ``(L,)``."""
        ...


@torch.no_grad()
def copy_entries(source: State, source_rows: slice, target: State, target_rows: slice) -> None:
    """Copies entries of one state's path to those of another, with what they share."""
    theirs = target.tensors()
    for name, tensor in source.tensors().items():
        if tensor.dim():
            theirs[name][target_rows] = tensor[source_rows]
        else:
            theirs[name].copy_(tensor)
