"""Fits on parts of the samples: folds of a cross-validation, and few-shot draws. No row is copied."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from handgrad.data.normalization import by_columns, folded, shift_and_scale, statistics
from handgrad.data.rows import Rows, fleeting
from handgrad.functions.linear_map import linear_map
from handgrad.functions.objective import Objective, in_turn
from handgrad.metrics import Outcome, joined, outcome, outcome_of_labels
from handgrad.solvers.centred import CentredProblem
from handgrad.solvers.joint import Joint
from handgrad.solvers.kronecker import feature_gram
from handgrad.solvers.newton import NewtonMetric
from handgrad.solvers.quasi_newton import ROWS, Eigen
from handgrad.solvers.solve import WholeSet, solve

NUMBERS_AT_ONCE = 2**20  # logits of a chunk of held out samples, or their features
BY_COLUMNS = ("center", "standardize")
SHARED = 2048  # features at most, of which Gram matrices of several l2 values are kept
READING = 25  # outputs of which the products take as long as to read the features for them
TOGETHER, OUTPUTS = 8, 150  # fits that share passes at most, and outputs of all of them
Run = Callable[[Sequence[Callable[[], Any]]], list[Any]]
Part = tuple[Tensor, Tensor | None]  # ascending indices: the samples that train, and those that are evaluated


@dataclass(frozen=True)
class Fitted:
    """A path that was solved on some samples, and what it gives on others.

    Attributes:
        weight, bias: (L, K, D) and (L, K), on the features as they were given.
        report: what the solver knows of each entry, by the names of the results, each (L,).
        outcomes: of each entry on the samples that were held out.
    """

    weight: Tensor
    bias: Tensor
    report: dict[str, Tensor]
    outcomes: list[Outcome]


@dataclass(frozen=True)
class PartialFits:
    """Solves the same path on any part of the samples, without a copy of them.

    Args:
        solver: an ``Exact``.
        objective: with the l2 values, (L,).
        outputs: K.
        input, target: (N, D), a tensor or ``Rows``, and (N,).
        weights: of the samples ``index (n,)`` of a training part, (n,); or None, where all weigh alike.
        normalize: ``center`` or ``standardize``: each part by statistics of its own training samples; else nothing is
            done to the features.
    """

    solver: Any
    objective: Objective
    outputs: int
    input: Tensor | Rows
    target: Tensor
    weights: Callable[[Tensor], Tensor | None]
    normalize: str = "none"

    def fit(
        self, train: Tensor, held: Tensor | None, *, keep: bool = False, before: Callable[[], None] | None = None
    ) -> Fitted:
        """Solves the path on the samples ``train``, and evaluates it on the samples ``held``, ascending indices both.

        Args:
            held: None: nothing is evaluated.
            keep: whether outcomes have the (m, C) probabilities.
            before: is called before each l2 value.
        """
        x, columns = self.normalized(train)
        block = WholeSet(x.fleeting(), self.target[train], self.weights(train))
        state = self.solved(self.objective, block, before)
        weight, bias = (state.weight, state.bias) if columns is None else folded(state.weight, state.bias, *columns)
        return Fitted(weight, bias, self.solver.report(state), self.outcomes(weight, bias, held, keep))

    def fits(
        self, parts: Sequence[Part], *, keep: bool = False, before: Callable[[], None] | None = None, done: int = 0
    ) -> Iterator[tuple[int, list[Fitted]]]:
        """Yields what ``fit`` gives for each of several parts, in groups that are solved at once.

        Args:
            done: parts that need not be solved; a group of which some are needed is solved whole.

        Yields:
            The number of a group's first part, and what came of its parts, in order.
        """
        size = self.together(parts)
        for first in range(0, len(parts), size):
            group = parts[first : first + size]
            if first + len(group) <= done:
                continue
            if len(group) > 1:
                yield first, self.fit_together(group, keep, before)
            else:
                yield first, [self.fit(*group[0], keep=keep, before=before)]

    def together(self, parts: Sequence[Part]) -> int:
        """Returns how many of the parts are best solved at once, by passes over all samples, where they leave some out.

        Where it is several they need Gram matrices that are made already, and features that are the same for all.
        """
        if self.solver.grams is None or self.normalize in BY_COLUMNS:
            return 1
        sizes = [len(train) for train, _ in parts]
        small = NewtonMetric.suits(min(sizes), self.input.shape[1], self.outputs, self.objective.loss.sigmoids)
        size = spread_evenly(len(parts), max(1, min(TOGETHER, OUTPUTS // self.outputs)))
        alone = sum(sizes) / len(sizes) * (READING + self.outputs)
        return 1 if small or alone < len(self.target) * (READING / size + self.outputs) else size

    def fit_together(self, parts: Sequence[Part], keep: bool, before: Callable[[], None] | None = None) -> list[Fitted]:
        """Returns what ``fit`` gives for each part, by passes that all of them make together."""
        weights = torch.zeros(len(parts), len(self.target), dtype=torch.float64)
        for own, (train, _) in zip(weights, parts, strict=True):
            own[train] = 1.0 if (given := self.weights(train)) is None else given.double()
        x = rows_of(self.input, self.all).fleeting()
        joint = Joint(self.objective, x, self.target, weights)

        def fitted(number: int) -> Fitted:
            state = self.solved(joint.member(number), WholeSet(x, self.target, weights[number]), before)
            found = self.outcomes(state.weight, state.bias, parts[number][1], keep)
            return Fitted(state.weight, state.bias, self.solver.report(state), found)

        return joint.run([partial(fitted, number) for number in range(len(parts))])

    def solved(self, objective: Objective, block: WholeSet, before: Callable[[], None] | None) -> Any:
        """Returns the solver's state at the end of the path."""
        zeros = torch.zeros(len(objective.l2), self.outputs, self.input.shape[1], dtype=torch.float64)
        return solve(self.solver, objective, zeros, zeros[:, :, 0], repeated(block, len(zeros), before)).state

    def outcomes(self, weight: Tensor, bias: Tensor, held: Tensor | None, keep: bool) -> list[Outcome]:
        """Returns what a path gives on the samples ``held``; None: nothing."""
        if held is None:
            return []
        samples = rows_of(self.input, held), self.target[held]
        return outcomes(weight, bias, *samples, keep=keep, run=self.objective.run)

    @property
    def all(self) -> Tensor:
        """All samples, (N,)."""
        return torch.arange(len(self.target))

    def guided_by(self, weight: Tensor, bias: Tensor) -> "PartialFits":
        """Returns the same fits, which take from a path on all samples how features bend the loss.

        That is a preconditioner: it says how to go, and neither where to begin nor when to end. So fits that leave
        samples out learn nothing of these, and Gram matrices are made once for all fits.

        Args:
            weight, bias: (L, K, D) and (L, K), the solutions on all samples, on the features as they are given.
        """
        if self.input.shape[1] > SHARED:
            return self
        centred, entries = cache(self.centred), self.objective.l2.tolist()

        @cache
        def gram(l2: float) -> Eigen:
            entry, spread = entries.index(l2), torch.zeros(len(self.target))
            at = weight[entry, None], bias[entry, None], self.input, self.target, self.weights(self.all)
            self.objective.data_term(*at, dtype=torch.float32, spread=spread)
            values, vectors = torch.linalg.eigh(feature_gram(centred(), spread, 2 * ROWS, entry))
            return values, vectors

        return replace(self, solver=replace(self.solver, grams=gram))

    def centred(self) -> CentredProblem:
        """Returns the problem on all samples."""
        x, _ = self.normalized(self.all)
        data = x, self.target, self.weights(self.all)
        return CentredProblem(self.objective, *data, self.outputs, self.solver.fit_bias)

    def normalized(self, train: Tensor) -> tuple[Rows, tuple[Tensor, Tensor] | None]:
        """Returns the rows ``train`` as they are solved on, and what was subtracted and divided by, each (D,)."""
        x = rows_of(self.input, train)
        if self.normalize not in BY_COLUMNS:
            return x, None
        columns = shift_and_scale(self.normalize, statistics(x.chunks()), x.dtype)
        return x.transformed(by_columns(*columns)), columns


def spread_evenly(count: int, most: int) -> int:
    """Returns the size of the groups into which things are parted, no more than ``most`` in each."""
    return -(-count // -(-count // most))


def repeated(block: WholeSet, times: int, before: Callable[[], None] | None) -> Iterator[WholeSet]:
    """Yields a block so many times, each after a call of ``before``."""
    for _ in range(times):
        if before is not None:
            before()
        yield block


def rows_of(input: Tensor | Rows, index: Tensor) -> Rows:
    """Returns the rows ``index``, ascending and each once, of a matrix."""
    rows = input if isinstance(input, Rows) else Rows([input])
    return rows if len(index) == len(rows) else rows.at(index)


def outcomes(
    weight: Tensor, bias: Tensor, input: Tensor | Rows, target: Tensor, *, keep: bool = False, run: Run | None = None
) -> list[Outcome]:
    """Returns what each of L classifiers gives on samples ``input (N, D)``, ``target (N,)``.

    Args:
        weight, bias: (L, K, D) and (L, K), of which the dtype is computed in.
        keep: whether to keep the (N, C) probabilities.
        run: makes calls, side by side if it likes; None: one after another.
    """
    rows, x = max(1, NUMBERS_AT_ONCE // max(input.shape[1], bias.numel())), fleeting(input, weight.dtype)

    def of_part(first: int) -> list[Outcome]:
        part = slice(first, first + rows)
        z = linear_map(x[part].to(weight.dtype), weight) + bias.unsqueeze(2)
        find = outcome if target.dim() == 1 else outcome_of_labels
        return [find(logits.t(), target[part], keep) for logits in z]

    calls = [partial(of_part, first) for first in range(0, len(target), rows)]
    parts = (run or in_turn)(calls)
    return [joined(list(entry)) for entry in zip(*parts, strict=True)]
