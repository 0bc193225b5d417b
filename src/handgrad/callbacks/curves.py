"""Writes the learning curves."""

import pytorch_lightning as pl
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.loggers.tensorboard import path_logger_of
from handgrad.models.linear_classifier import LinearClassifier


class Curves(pl.Callback):
    """Logs each mini-batch's loss before its update (``loss/train``) and what every check found.

    x is the number of updates so far, a mini-batch's own included.

    A classifier that has stopped is not logged any more, as if its run had ended.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        logger = path_logger_of(trainer)
        if logger and trainer.global_step:
            logger.resume(trainer.global_step)

    def on_test_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if logger := path_logger_of(trainer):
            logger.resume(trainer.global_step)  # a run that was stopped after its last update trains no more

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: LinearClassifier, outputs: dict[str, Tensor], batch: Block, batch_idx: int
    ) -> None:
        if logger := path_logger_of(trainer):
            running = pl_module.steps == trainer.global_step
            logger.log_path(batch.first + 1, {"loss/train": outputs["loss"]}, running)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if logger := path_logger_of(trainer):
            running = pl_module.steps == trainer.global_step
            metrics = {name: values[None] for name, values in pl_module.metrics.items()}
            logger.log_path(trainer.global_step, metrics, running)
