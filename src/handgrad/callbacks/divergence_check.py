"""Stops a run whose loss is no longer finite."""

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier


class DivergenceCheck(pl.Callback):
    """Raises an InputError that names the loss, the l2 value and the update when a loss becomes NaN or infinite."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: LinearClassifier, outputs: dict[str, Tensor], batch: Block, batch_idx: int
    ) -> None:
        self.check("loss/train", outputs["loss"], batch.first, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.check("loss/val", pl_module.metrics["loss/val"][None], trainer.global_step, pl_module)

    def check(self, name: str, losses: Tensor, first: int, model: LinearClassifier) -> None:
        """Checks ``losses (B, L)``, the first row of which was measured after ``first`` updates."""
        wrong = ~torch.isfinite(losses)
        if wrong.any():
            row, path = wrong.nonzero()[0].tolist()
            loss, l2 = losses[row, path].item(), model.hparams["l2"][path]
            raise InputError(
                f"{name} is {loss} at l2={l2:g} after {first + row} updates: training diverged; try a smaller lr"
            )
