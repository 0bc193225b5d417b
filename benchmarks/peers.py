"""What this project is compared with: softmax regression as people write it, on the same mini-batches in one order.

Every peer makes the same updates of a classifier that starts at zero, and evaluates at the same updates: loss and
accuracy on the validation set, accuracy on the training set, each set in one call. The data is in memory in the form
the peer likes. Each returns its last ``(validation loss, validation accuracy)``. Lightning is in ``peer_lightning.py``.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

End = tuple[float, float]  # validation loss, validation accuracy


@dataclass(frozen=True, eq=False)
class Problem:
    """The task of all contestants.

    Attributes:
        train, val: ``input (N, D)`` float32 and ``target (N,)``.
        batches: the sample indices ``(B,)`` of each update, over all epochs.
        check_interval: updates between two evaluations.
        last_check: the update that an evaluation follows besides these: a run's last one.
    """

    train: tuple[Tensor, Tensor]
    val: tuple[Tensor, Tensor]
    batches: list[Tensor]
    check_interval: int
    last_check: int
    num_classes: int
    lr: float
    epochs: int

    def is_check(self, update: int) -> bool:
        """Returns whether an evaluation follows this update, counted from 1."""
        return update % self.check_interval == 0 or update == self.last_check

    @property
    def checks(self) -> int:
        """Number of evaluations."""
        return sum(map(self.is_check, range(1, len(self.batches) + 1)))

    def first(self, epochs: int) -> "Problem":
        """Returns the first epochs of this problem."""
        return replace(self, batches=self.batches[: len(self.batches) // self.epochs * epochs], epochs=epochs)

    @cached_property
    def numpy(self) -> tuple[np.ndarray, ...]:
        """Training and validation set in the course's form."""
        return *course_form(*self.train, self.num_classes), *course_form(*self.val, self.num_classes)

    @cached_property
    def numpy_batches(self) -> list[np.ndarray]:
        return [index.numpy() for index in self.batches]

    def torch_batches(self) -> Iterator[tuple[bool, Tensor, Tensor]]:
        """Yields whether a check follows, and ``input (B, D), target (B,)``."""
        input, target = self.train
        for update, index in enumerate(self.batches, 1):
            yield self.is_check(update), input.index_select(0, index), target.index_select(0, index)


@cache
def course_form(input: Tensor, target: Tensor, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 inputs with a constant 1 appended (bias trick), and one-hot targets."""
    return np.hstack((input.double().numpy(), np.ones((len(input), 1)))), np.eye(num_classes)[target.numpy()]


def numpy_loop(problem: Problem) -> End:
    """The course's loop: float64, bias trick, one-hot targets; the loss of each mini-batch is kept."""
    x_train, y_train, x_val, y_val = problem.numpy
    w = np.zeros((x_train.shape[1], problem.num_classes))
    losses = []
    for update, index in enumerate(problem.numpy_batches, 1):
        x, y = x_train[index], y_train[index]
        outputs = softmax(x @ w)
        losses.append(cross_entropy(y, outputs))
        w -= problem.lr * (x.T @ (outputs - y) / len(x))
        if problem.is_check(update):
            outputs = softmax(x_val @ w)
            loss, accuracy = cross_entropy(y_val, outputs), hits(y_val, outputs)
            hits(y_train, softmax(x_train @ w))
    return loss, accuracy


def softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def cross_entropy(targets: np.ndarray, outputs: np.ndarray) -> float:
    return float(-(targets * np.log(outputs)).sum(axis=1).mean())


def hits(targets: np.ndarray, outputs: np.ndarray) -> float:
    return float((targets.argmax(axis=1) == outputs.argmax(axis=1)).mean())


def torch_loop(problem: Problem) -> End:
    """The bare PyTorch loop: ``nn.Linear``, ``F.cross_entropy``, ``torch.optim.SGD``; keeps each mini-batch's loss."""
    return _torch_loop(problem, lambda model, x, y: F.cross_entropy(model(x), y))


def torch_fused_loop(problem: Problem) -> End:
    """The same with torch's own ``F.linear_cross_entropy``."""
    return _torch_loop(problem, lambda model, x, y: F.linear_cross_entropy(x, model.weight, y, linear_bias=model.bias))


def _torch_loop(problem: Problem, objective: Callable[[torch.nn.Linear, Tensor, Tensor], Tensor]) -> End:
    model = linear(problem)
    optimizer = torch.optim.SGD(model.parameters(), lr=problem.lr)
    losses = []
    for check, x, y in problem.torch_batches():
        loss = objective(model, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if check:
            end = evaluate(problem, model)
    return end


def linear(problem: Problem) -> torch.nn.Linear:
    model = torch.nn.Linear(problem.train[0].shape[1], problem.num_classes)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    return model


@torch.no_grad()
def evaluate(problem: Problem, model: Callable[[Tensor], Tensor]) -> End:
    """Evaluates the validation set and, its accuracy only, the training set."""
    (x_train, y_train), (x_val, y_val) = problem.train, problem.val
    logits = model(x_val)
    loss, accuracy = F.cross_entropy(logits, y_val).item(), (logits.argmax(1) == y_val).float().mean().item()
    (model(x_train).argmax(1) == y_train).float().mean().item()
    return loss, accuracy


@torch.no_grad()
def closed_form_loop(problem: Problem) -> End:
    """The update as a formula, no autograd and no optimizer, the fewest operations there are."""
    weight, bias = torch.zeros(problem.num_classes, problem.train[0].shape[1]), torch.zeros(problem.num_classes)
    minus_one = torch.full((len(problem.batches[0]), 1), -1.0)
    for check, x, y in problem.torch_batches():
        dz = torch.addmm(bias, x, weight.t()).softmax(1)
        dz.scatter_add_(1, y[:, None], minus_one)  # minus the one-hot target
        weight.addmm_(dz.t(), x, alpha=-problem.lr / len(y))
        bias.sub_(dz.sum(0), alpha=problem.lr / len(y))
        if check:
            end = evaluate(problem, lambda x: torch.addmm(bias, x, weight.t()))
    return end


@torch.no_grad()
def products_only(problem: Problem) -> None:
    """The floor: two matrix products an update, and the evaluations' products; it learns nothing."""
    weight = torch.zeros(problem.num_classes, problem.train[0].shape[1])
    for update, index in enumerate(problem.batches, 1):
        x = problem.train[0][: len(index)]
        torch.mm(torch.mm(x, weight.t()).t(), x)
        if problem.is_check(update):
            torch.mm(problem.val[0], weight.t())
            torch.mm(problem.train[0], weight.t())
