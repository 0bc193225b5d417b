"""L-BFGS with a Kronecker preconditioner, for large problems."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from handgrad.solvers.centred import CentredProblem, Point
from handgrad.solvers.kronecker import KroneckerPreconditioner, feature_gram
from handgrad.solvers.pairs import Pairs

REFRESH, FALL = (8, 24), 10.0  # iterations, and a fall of l2, after which the Gram matrix is made anew
WELL = 1e-6  # of the features' variance: above it float32 is enough for a Gram matrix that l2 is added to
DEAR = 16  # passes that a Gram matrix costs, from which it is made anew only where as many have not been enough
ROWS, PAIRS, MEMORY = 4096, 200, 2**25  # of a Gram matrix, twice that where it takes long; pairs, and their numbers


Eigen = tuple[Tensor, Tensor]  # eigenvalues and eigenvectors of a Gram matrix


class QuasiNewtonMetric:
    """Steps by what the latest steps showed of the Hessian, on top of its Kronecker approximation.

    Args:
        grams: the Gram matrix for an l2, of samples like these, in place of their own.
    """

    def __init__(self, problem: CentredProblem, grams: Callable[[float], Eigen] | None = None) -> None:
        self.problem, self.grams = problem, grams
        self.pairs = Pairs(most_pairs(problem.outputs, len(problem.mean)), problem.penalized.repeat(problem.outputs))
        self.gram_at, self.draws = math.inf, 0
        self.cost = passes_of_gram(problem)
        self.eigen: Eigen | None = None

    @staticmethod
    def empty_memory(outputs: int, features: int) -> dict[str, Tensor]:
        """Returns what ``save`` writes to."""
        pairs = torch.zeros(most_pairs(outputs, features), outputs * (features + 1), dtype=torch.float64)
        basis = torch.zeros(features + 1, features + 1, dtype=torch.float64)
        return {
            "steps": pairs,
            "changes": pairs.clone(),
            "eigenvalues": basis[0].clone(),
            "eigenvectors": basis,
            "counts": torch.tensor([0, 0, 0, math.inf], dtype=torch.float64),  # pairs, their l2; draws, l2 of the last
        }

    def exactly(self, parameters: Tensor) -> Point:
        """Evaluates in float64, with the coupling."""
        return self.problem.at(parameters, coupling=True)

    def save(self, memory: dict[str, Tensor]) -> None:
        """Writes down what the next entry begins with."""
        count = len(self.pairs.S)
        memory["steps"][:count], memory["changes"][:count] = self.pairs.S, self.pairs.Y
        counts = [count, self.pairs.l2, self.draws, self.gram_at]
        memory["counts"].copy_(torch.tensor(counts, dtype=torch.float64))
        if self.eigen:
            size = len(self.eigen[0])
            memory["eigenvalues"][:size], memory["eigenvectors"][:size, :size] = self.eigen

    def load(self, memory: dict[str, Tensor]) -> None:
        """Takes up what ``save`` wrote."""
        count, l2, draws, self.gram_at = memory["counts"].tolist()
        self.draws = int(draws)
        self.pairs.load(memory["steps"][: int(count)], memory["changes"][: int(count)], l2)
        if self.draws:
            size = len(self.problem.mean) + int(not self.problem.free)
            self.eigen = memory["eigenvalues"][:size].clone(), memory["eigenvectors"][:size, :size].clone()

    def begin(self, l2: float) -> None:
        """Takes up an l2."""
        self.pairs.begin(l2)
        if self.grams is not None and l2 * FALL <= self.gram_at:
            self.eigen, self.gram_at = self.grams(l2), l2

    def wants_gram(self, iteration: int, l2: float) -> bool:
        """Tells whether ``refresh`` will ask for the samples' spread at this iteration."""
        if self.grams is not None:
            return False
        if self.cost > DEAR:
            return iteration in (self.cost, 3 * self.cost) or (iteration == 0 and self.gram_at == math.inf)
        return iteration in REFRESH or (iteration == 0 and l2 * FALL <= self.gram_at)

    def refresh(self, point: Point, l2: float, iteration: int, spread: Tensor, last: bool) -> None:
        """Makes the preconditioner anew, where it is time."""
        anew = self.wants_gram(iteration, l2)
        if anew:
            rows = 2 * ROWS if iteration else ROWS
            well = self.eigen is not None and self.eigen[0].sum() * WELL < l2
            dtype = torch.float32 if well else torch.float64
            self.eigen = torch.linalg.eigh(feature_gram(self.problem, spread, rows, self.draws, dtype))
            self.draws, self.gram_at = self.draws + 1, l2
        if anew or iteration in (0, *REFRESH):
            assert self.eigen is not None
            self.precondition = KroneckerPreconditioner(point, *self.eigen, self.problem.free)

    def direction(self, gradient: Tensor, l2: float) -> Tensor:
        """Returns the step for a gradient, both (K, D + 1)."""

        def precondition(flat: Tensor) -> Tensor:
            return self.precondition(flat.view_as(gradient), l2).flatten()

        return self.problem.without_shift(self.pairs.direction(gradient.flatten(), precondition).view_as(gradient))

    def learn(self, step: Tensor, change: Tensor, curved: bool) -> None:
        """Remembers a step and the change of J's gradient along it, where it rose enough."""
        if curved:
            self.pairs.add(step.flatten(), change.flatten())


def passes_of_gram(problem: CentredProblem) -> int:
    """Returns how many passes over the samples of all processes take as long as a Gram matrix and its eigenvectors."""
    samples, features = int(problem.total(torch.tensor([len(problem.target)])).item()), len(problem.mean)
    operations = 2 * min(ROWS, samples) * features**2 + 6 * features**3
    return operations // (4 * samples * features * problem.outputs)


def most_pairs(outputs: int, features: int) -> int:
    """Returns how many pairs are kept: as many as memory allows."""
    return min(PAIRS, max(8, MEMORY // (2 * outputs * (features + 1))))
