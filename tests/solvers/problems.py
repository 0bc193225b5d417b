"""What every solver is tried on: small problems, blocks of mini-batches, and the objective by plain formulas."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.functions.objective import LOGISTIC, SOFTMAX, Objective
from handgrad.solvers.adam import Adam
from handgrad.solvers.protocol import Solver, State
from handgrad.solvers.sgd import SGD

SOLVERS: dict[str, Solver] = {
    "sgd": SGD(lr=0.1),
    "momentum": SGD(lr=0.1, momentum=0.9),
    "adam": Adam(lr=0.05, betas=(0.8, 0.95)),
}
FEATURES, CLASSES, BATCH = 4, 3, 8


class Batches:
    """The least that is a Block: mini-batches in a list."""

    def __init__(self, batches: list[tuple], share: float = 1.0) -> None:
        self.batches, self.share = batches, share

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Those of two tensors have no weights."""
        return ((*batch, None)[:3] for batch in self.batches)


@dataclass(frozen=True)
class Problem:
    """An objective of L classifiers with K outputs, and data without end; a start that differs in every number."""

    loss: str
    l2: tuple[float, ...]
    penalize_bias: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.l2), CLASSES if self.loss == "softmax" else 1, FEATURES

    @property
    def objective(self) -> Objective:
        loss = SOFTMAX if self.loss == "softmax" else LOGISTIC
        return Objective(loss, torch.tensor(self.l2, dtype=torch.float64), self.penalize_bias)

    def start(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Returns a weight (L, K, D) and a bias (L, K), in float64."""
        generator = torch.Generator().manual_seed(seed)
        weight, bias = (torch.randn(size, generator=generator).double() for size in (self.shape, self.shape[:2]))
        return weight, bias

    def block(self, batches: int, seed: int = 0) -> Batches:
        generator = torch.Generator().manual_seed(1000 + seed)
        classes = CLASSES if self.loss == "softmax" else 2
        return Batches(
            [
                (
                    torch.randn(BATCH, FEATURES, generator=generator).double(),
                    torch.randint(0, classes, (BATCH,), generator=generator),
                )
                for _ in range(batches)
            ]
        )

    def plain_loss(self, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor) -> Tensor:
        """C of one classifier, weight (K, D), bias (K,), by torch's own functions; differentiable."""
        logits = input @ weight.T + bias
        if self.loss == "softmax":
            return F.cross_entropy(logits, target)
        return F.binary_cross_entropy_with_logits(logits[:, 0], target.double())

    def plain_objective(self, entry: int, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor) -> Tensor:
        """J of one classifier of the path."""
        squares = weight.square().sum() + (bias.square().sum() if self.penalize_bias else 0)
        return self.plain_loss(weight, bias, input, target) + self.l2[entry] / 2 * squares

    def derivative(self, weight: Tensor, bias: Tensor, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """dJ/dweight and dJ/dbias of all classifiers, written out: (p - y)^T x / N, and l2 times the parameters."""
        logits = torch.einsum("lkd,nd->lnk", weight, input) + bias[:, None]
        if self.loss == "softmax":
            odds = logits.exp()
            p, y = odds / odds.sum(2, keepdim=True), torch.eye(CLASSES, dtype=torch.float64)[target]
        else:
            p, y = 1 / (1 + (-logits).exp()), target.double()[:, None]
        dz = (p - y) / len(target)
        l2 = torch.tensor(self.l2, dtype=torch.float64)
        dbias = dz.sum(1) + (l2[:, None] * bias if self.penalize_bias else 0)
        return torch.einsum("lnk,nd->lkd", dz, input) + l2[:, None, None] * weight, dbias


# A path with a penalty of 0 in its midst is another path than one without penalties: there the penalty is left out.
PROBLEMS = {
    f"{loss}-{len(l2)}-{'l2' if any(l2) else 'free'}{'-bias' * penalize_bias}": Problem(loss, l2, penalize_bias)
    for loss, l2, penalize_bias in product(
        ("softmax", "logistic"), ((0.0,), (0.3,), (0.0, 0.0, 0.0), (0.1, 0.0, 1.0)), (False, True)
    )
    if any(l2) or not penalize_bias
}


def ones(problem: Problem) -> Tensor:
    """All entries train."""
    return torch.ones(len(problem.l2), dtype=torch.float64)


def trained(solver: Solver, problem: Problem, updates: int = 3) -> State:
    """Returns the state after the updates of one block."""
    state = solver.init(*problem.start())
    solver.step(problem.objective, state, problem.block(updates), ones(problem))
    return state


def copies(state: State) -> dict[str, Tensor]:
    """Returns everything of a state as it is now."""
    return {name: tensor.detach().clone() for name, tensor in state.tensors().items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """To 1e-12; what all entries share to the bit."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-12 if tensor.dim() else 0, atol=1e-12, msg=name)


def assert_trained_alone(
    state: State, problem: Problem, updates: int, optimizer: Callable[[Sequence[Tensor]], torch.optim.Optimizer]
) -> None:
    """Each entry is where torch's own optimizer leads it, alone, by what autograd finds of the plain objective."""
    for entry, parameters in enumerate(zip(*problem.start(), strict=True)):
        for parameter in parameters:
            parameter.requires_grad_()
        torchs = optimizer(parameters)
        for input, target, _ in problem.block(updates):
            torchs.zero_grad()
            problem.plain_objective(entry, *parameters, input, target).backward()
            torchs.step()
        for found, expected in zip((state.weight, state.bias), parameters, strict=True):
            torch.testing.assert_close(found[entry], expected.detach(), rtol=1e-12, atol=1e-12)
