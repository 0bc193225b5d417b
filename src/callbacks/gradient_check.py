"""Proves the derived gradient on the run's own first mini-batch before the first update."""

import logging

import pytorch_lightning as pl
import torch
from torch import Tensor

from src.errors import GradientError
from src.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class Objective(torch.nn.Module):
    """The model's objective as a module of its own, so that ``functional_call`` can give it other weights."""

    def __init__(self, model: LinearClassifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return sum(self.model.terms(input, target))


class GradientCheck(pl.Callback):
    """Compares directional derivatives: the derived gradient's against 5-point central differences, in float64.

    The point is random, since at the start, where the weights are zero, a missing L2 gradient would not show. An
    error in any entry of the gradient shows along a random direction.

    Args:
        tolerance: largest relative error accepted, over the directions, for each classifier.
        directions: number of random directions.
        classifiers: largest number of classifiers of a path that are checked, evenly spread over it.

    Raises:
        GradientError: (on_train_start) the gradient is wrong.
    """

    def __init__(self, tolerance: float, directions: int, classifiers: int) -> None:
        self.tolerance = tolerance
        self.directions = directions
        self.classifiers = classifiers

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        input, target = next(iter(next(iter(trainer.train_dataloader))))
        error = self.relative_error(pl_module, input, target)
        worst = error.max().item()
        if not worst <= self.tolerance:
            l2 = pl_module.l2[self.spread(pl_module)][error.argmax()].item()
            raise GradientError(
                f"the derived gradient at l2={l2:g} differs from finite differences by {worst:.1e} (relative); "
                f"at most {self.tolerance:.0e} is accepted; nothing was trained"
            )
        log.info("Gradient proven on the first mini-batch: relative error %.1e against finite differences", worst)
        if trainer.logger:
            trainer.logger.log_metrics({"gradient_error": worst}, step=trainer.global_step)

    def spread(self, model: LinearClassifier) -> Tensor:
        """Returns the indices of the classifiers that are checked."""
        paths = len(model.l2)
        return torch.linspace(0, paths - 1, min(paths, self.classifiers)).round().long().to(model.l2.device)

    def relative_error(self, model: LinearClassifier, input: Tensor, target: Tensor) -> Tensor:
        """Returns, per checked classifier, the norm of the error over the directions relative to the derivatives'."""
        generator = torch.Generator().manual_seed(0)

        def normal(like: Tensor) -> Tensor:
            return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.device)

        chosen = self.spread(model)
        l2, input = model.l2[chosen].double(), input.double()
        point = [0.05 * normal(p[chosen]) for p in (model.weight, model.bias)]
        objective = Objective(model)

        def value(*parameters: Tensor) -> Tensor:
            weight, bias = parameters
            state = {"model.weight": weight, "model.bias": bias, "model.l2": l2}
            return torch.func.functional_call(objective, state, (input, target))

        leaves = [p.clone().requires_grad_() for p in point]
        gradients = torch.autograd.grad(value(*leaves).sum(), leaves)
        errors, scales = [], []
        for _ in range(self.directions):
            direction = [normal(p) / p[0].numel() ** 0.5 for p in point]
            derived = sum((g * v).flatten(1).sum(1) for g, v in zip(gradients, direction, strict=True))
            with torch.no_grad():
                numeric = central_difference(value, point, direction)
            errors.append(derived - numeric)
            scales.append(numeric)
        return torch.stack(errors).norm(dim=0) / torch.stack(scales).norm(dim=0)


def central_difference(value, point: list[Tensor], direction: list[Tensor], step: float = 2e-3) -> Tensor:
    """Returns the 5-point central difference of ``value`` at ``point`` along ``direction``; its error is O(step^4)."""

    def at(t: float) -> Tensor:
        return value(*(p + t * step * v for p, v in zip(point, direction, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
