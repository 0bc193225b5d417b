"""Random small problems with what makes optima hard to find, and a plain search for the optimum that proves nothing."""

import math
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from handgrad.functions.objective import LOGISTIC, MULTILABEL, SOFTMAX, Objective
from handgrad.solvers.certificate import ROUNDING
from handgrad.solvers.exact import NUMBERS, Exact, ExactState
from tests.solvers.problems import Batches


class Optimum(NamedTuple):
    """A problem of one l2; K = 1 is logistic, and where y is (N, K) each sample has several labels."""

    x: Tensor
    y: Tensor
    sample_weight: Tensor | None
    l2: float
    penalize_bias: bool
    outputs: int

    def objective(self, l2: list[float] | None = None) -> Objective:
        values = torch.tensor([self.l2] if l2 is None else l2, dtype=torch.float64)
        loss = MULTILABEL if self.y.dim() == 2 else LOGISTIC if self.outputs == 1 else SOFTMAX
        return Objective(loss, values, self.penalize_bias)

    def block(self) -> Batches:
        return Batches([(self.x, self.y, self.sample_weight)])

    def solved(self, solver: Exact, l2: list[float] | None = None) -> ExactState:
        """Returns the state after all entries were solved."""
        objective = self.objective(l2)
        state = begun(solver, objective, self.outputs, self.x.shape[1])
        for _ in objective.l2:
            solver.step(objective, state, self.block(), torch.ones(len(objective.l2)))
        return state

    def value(self, parameters: Tensor) -> Tensor:
        """J by torch's own functions, of weight and bias side by side (K, D + 1); differentiable."""
        z = self.x @ parameters[:, :-1].t() + parameters[:, -1]
        if self.y.dim() == 2:
            losses = F.binary_cross_entropy_with_logits(z, self.y.double(), reduction="none").sum(1)
        elif self.outputs == 1:
            losses = F.binary_cross_entropy_with_logits(z[:, 0], self.y.double(), reduction="none")
        else:
            losses = F.cross_entropy(z, self.y, reduction="none")
        s = torch.ones_like(losses) if self.sample_weight is None else self.sample_weight
        squares = (parameters if self.penalize_bias else parameters[:, :-1]).square().sum()
        return (s * losses).sum() / s.sum() + self.l2 / 2 * squares


def begun(solver: Exact, objective: Objective, outputs: int, features: int) -> ExactState:
    paths = len(objective.l2)
    weight = torch.zeros(paths, outputs, features, dtype=torch.float64)
    return solver.init(weight, weight[:, :, 0].clone())


def numbers(state: ExactState, entry: int = 0) -> dict[str, float]:
    return dict(zip(NUMBERS, state.numbers[entry].tolist(), strict=True))


def drawn(seed: int) -> Optimum:
    """Returns a random problem.

    Scales of columns from 1e-3 to 1e3, l2 from 1e-8 to 1e3, few or many samples; separable, imbalanced, with constant
    columns, rows that repeat, an offset, weights with zeros.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    outputs, features, samples = (
        rng.choice([1, 2, 3, 5, 8]),
        rng.choice([1, 2, 5, 12, 30]),
        rng.choice([10, 30, 100, 400]),
    )
    classes = max(outputs, 2)
    x = normal(samples, features) * 10 ** (6 * uniform(features) - 3)
    kind = rng.choice(["random", "linear", "separable", "imbalanced"])
    if kind == "random":
        y = torch.randint(classes, (samples,), generator=generator)
    elif kind == "imbalanced":
        y = (uniform(samples) < 1e-3).long()
    else:
        noise = 2 if kind == "linear" else 0
        y = (x / x.abs().mean(0) @ normal(features, classes) + noise * normal(samples, classes)).argmax(1)
    y[:classes] = torch.arange(classes)
    if rng.random() < 0.3:
        x[:, 0] = 3.7
    if rng.random() < 0.3:
        x[samples // 2 :] = x[: samples - samples // 2]
    if rng.random() < 0.3:
        x = x + 10 ** rng.uniform(-2, 3)
    weight = None
    if rng.random() < 0.4:
        weight = uniform(samples) * (uniform(samples) > 0.3)
        weight[:classes] = 0.5
    return Optimum(x, y, weight, 10 ** rng.uniform(-8, 3), rng.random() < 0.3, outputs)


def drawn_labels(seed: int) -> Optimum:
    """Returns a random problem like ``drawn``, whose samples have 2 to 6 labels, each; some separable, some rare."""
    given, generator = drawn(seed), torch.Generator().manual_seed(seed)
    samples, labels = len(given.x), 2 + seed % 5
    odds = given.x / given.x.abs().mean(0) @ torch.randn(given.x.shape[1], labels, generator=generator).double()
    noise = torch.randn(samples, labels, generator=generator).double() * torch.arange(labels)
    y = (odds + noise > 2 * torch.arange(labels) - 2).long()
    y[0], y[1] = 0, 1
    if given.sample_weight is not None:
        given.sample_weight[:2] = 0.5
    return given._replace(y=y, outputs=labels)


def label_of(problem: Optimum, label: int) -> Optimum:
    """Returns the problem of one of several labels, by itself."""
    return problem._replace(y=problem.y[:, label], outputs=1)


def is_plain(problem: Optimum) -> bool:
    """Tells whether its bias is free and its samples have no weights."""
    return not problem.penalize_bias and problem.sample_weight is None


def plain_one(outputs: int) -> Optimum:
    return next(found for found in map(drawn, range(100)) if is_plain(found) and found.outputs == outputs)


def lowest(problem: Optimum, start: Tensor, steps: int = 200) -> float:
    """Returns the lowest J that damped Newton steps by autograd's Hessian find from ``start``: J's minimum or above."""
    point = start.clone()
    best = problem.value(point).item()
    for _ in range(steps):
        gradient = torch.autograd.functional.jacobian(problem.value, point).flatten()
        hessian = torch.autograd.functional.hessian(problem.value, point, vectorize=True).reshape(len(gradient), -1)
        scale = hessian.diagonal().clamp_min(1e-300).rsqrt()
        scaled = hessian * scale[:, None] * scale
        scaled.diagonal().add_(1e-11)
        step = (scale * torch.linalg.solve(scaled, scale * gradient)).view_as(point)
        size = 1.0
        while size > 1e-6 and not problem.value(point - size * step).item() < best:
            size /= 2
        value = problem.value(point - size * step).item()
        if not value < best or math.isclose(value, best, rel_tol=1e-16):
            return min(value, best) if math.isfinite(value) else best
        point, best = point - size * step, value
    return best


def check_bound(problem: Optimum, solver: Exact) -> None:
    """Asserts that no J is further below an entry than its gap says, and that it is converged.

    But for a J below 1e-9, of which float64 does not tell a millionth: then it says that it is not.
    """
    state = problem.solved(solver)
    found = numbers(state)
    parameters = torch.cat((state.weight[0], state.bias[0][:, None]), 1)
    value = problem.value(parameters).item()
    assert math.isclose(value, found["objective"], rel_tol=1e-11, abs_tol=1e-12), "J is that of the saved weights"
    assert found["gap"] <= max(solver.tolerance, 2 * ROUNDING / value)
    assert solver.report(state)["converged"].item() == (found["gap"] <= solver.tolerance)
    assert (value - lowest(problem, parameters)) / value <= found["gap"] + 1e-12
