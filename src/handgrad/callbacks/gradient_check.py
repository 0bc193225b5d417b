"""Proves the derived gradient on the run's own first mini-batch before the first update."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.errors import GradientError
from handgrad.functions.objective import Objective
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class GradientCheck(pl.Callback):
    """Compares directional derivatives: the derived gradient's against 5-point central differences, in float64.

    The point is random, since at the start, where the weights are zero, a missing L2 gradient would not show. An
    error in any entry of the gradient shows along a random direction. The gradient is that of the very objective that
    trains.

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
        assert trainer.train_dataloader is not None
        input, target = next(iter(next(iter(trainer.train_dataloader))))
        objective, outputs = self.checked(pl_module.objective()), pl_module.bias.shape[1]
        error = self.relative_error(objective, outputs, input, target)
        worst = error.max().item()
        if not worst <= self.tolerance:
            l2 = objective.l2[error.argmax()].item()
            raise GradientError(
                f"the derived gradient at l2={l2:g} differs from finite differences by {worst:.1e} (relative); "
                f"at most {self.tolerance:.0e} is accepted; nothing was trained"
            )
        log.info("Gradient proven on the first mini-batch: relative error %.1e against finite differences", worst)
        if trainer.logger:
            trainer.logger.log_metrics({"gradient_error": worst}, step=trainer.global_step)

    def checked(self, objective: Objective) -> Objective:
        """Returns the objective that trains, of the classifiers that are checked, in float64 and in one process."""
        paths = len(objective.l2)
        chosen = torch.linspace(0, paths - 1, min(paths, self.classifiers)).round().long()
        return replace(objective, l2=objective.l2[chosen.to(objective.l2.device)].double(), total=None)

    def relative_error(self, objective: Objective, outputs: int, input: Tensor, target: Tensor) -> Tensor:
        """Returns, per classifier, the norm of the error over the directions relative to the derivatives'."""
        generator = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64).to(input.device)

        weight, bias = shapes = (len(objective.l2), outputs, input.shape[1]), (len(objective.l2), outputs)
        point = 0.05 * normal(*weight), 0.05 * normal(*bias)
        _, *gradients = objective.gradient(*point, input, target)
        errors, scales = [], []
        for _ in range(self.directions):
            direction = [normal(*shape) / math.prod(shape[1:]) ** 0.5 for shape in shapes]
            derived = sum((g * v).flatten(1).sum(1) for g, v in zip(gradients, direction, strict=True))
            numeric = central_difference(lambda w, b: objective.value(w, b, input, target), point, direction)
            errors.append(derived - numeric)
            scales.append(numeric)
        return torch.stack(errors).norm(dim=0) / torch.stack(scales).norm(dim=0)


def central_difference(
    value: Callable[..., Tensor], point: Sequence[Tensor], direction: Sequence[Tensor], step: float = 2e-3
) -> Tensor:
    """Returns the 5-point central difference of ``value`` at ``point`` along ``direction``; its error is O(step^4)."""

    def at(t: float) -> Tensor:
        return value(*(p + t * step * v for p, v in zip(point, direction, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
