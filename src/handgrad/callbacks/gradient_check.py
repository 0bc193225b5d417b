"""Proves the derived gradient on the run's own first mini-batch before the first update."""

import logging

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.errors import GradientError
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class GradientCheck(pl.Callback):
    """Compares directional derivatives: the derived gradient's against 5-point central differences, in float64.

    The point is random, since at the start, where the weights are zero, a missing L2 gradient would not show. An
    error in any entry of the gradient shows along a random direction. The gradient is that of ``differentiate``, as
    training takes it, in one process.

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

        checked, input = self.copy(model), input.double()
        point = [0.05 * normal(parameter) for parameter in checked.parameters()]

        @torch.no_grad()
        def objective(*parameters: Tensor) -> Tensor:
            checked.weight.data, checked.bias.data = parameters
            return checked.loss(input, target) + checked.penalty()

        objective(*point)  # puts the model there
        checked.differentiate(input, target)
        gradients = [parameter.grad for parameter in checked.parameters()]
        errors, scales = [], []
        for _ in range(self.directions):
            direction = [normal(p) / p[0].numel() ** 0.5 for p in point]
            derived = sum((g * v).flatten(1).sum(1) for g, v in zip(gradients, direction, strict=True))
            numeric = central_difference(objective, point, direction)
            errors.append(derived - numeric)
            scales.append(numeric)
        return torch.stack(errors).norm(dim=0) / torch.stack(scales).norm(dim=0)

    def copy(self, model: LinearClassifier) -> LinearClassifier:
        """Returns the classifiers that are checked as a model of their own, in float64."""
        chosen = self.spread(model)
        l2 = model.l2[chosen].tolist()
        return type(model)(**{**model.hparams, "l2": l2}).to(model.device, torch.float64)


def central_difference(value, point: list[Tensor], direction: list[Tensor], step: float = 2e-3) -> Tensor:
    """Returns the 5-point central difference of ``value`` at ``point`` along ``direction``; its error is O(step^4)."""

    def at(t: float) -> Tensor:
        return value(*(p + t * step * v for p, v in zip(point, direction, strict=True)))

    return (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step)
