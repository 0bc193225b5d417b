"""Writes the learning curves."""

import pytorch_lightning as pl
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.loggers.tensorboard import path_logger_of
from handgrad.models.linear_classifier import LinearClassifier


class Curves(pl.Callback):
    """Logs what the solver tells of each update, like the loss before it (``loss/train``), and what every check found.

    x is the number of updates that the classifier has made, its own included.

    A classifier that has stopped is not logged any more, as if its run had ended.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        logger = path_logger_of(trainer)
        if logger and trainer.global_step:
            logger.resume(trainer.global_step, -1 if pl_module.pipeline.one_at_a_time else None)

    def on_test_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if logger := path_logger_of(trainer):
            # A run that was stopped after its last update trains no more.
            logger.resume(trainer.global_step, int(pl_module.steps.max()))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: LinearClassifier, outputs: dict[str, Tensor], batch: Block, batch_idx: int
    ) -> None:
        if logger := path_logger_of(trainer):
            curves = {f"{name}/train": values for name, values in outputs.items()}
            points = len(next(iter(outputs.values())))
            logger.log_path(updates_made(pl_module) - points + 1, curves, pl_module.moved)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if logger := path_logger_of(trainer):
            metrics = {name: values[None] for name, values in pl_module.metrics.items()}
            logger.log_path(updates_made(pl_module), metrics, pl_module.moved)


def updates_made(model: LinearClassifier) -> int:
    """Returns how many updates have been made by each classifier that the latest block worked on."""
    return int(model.steps[model.moved].max())
