"""Stops a run whose loss is no longer finite, and warns of one that ends above where it began."""

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)
NAMED = 3  # l2 values in a warning


class DivergenceCheck(pl.Callback):
    """Raises an InputError that names the loss, the l2 value and the update when a loss becomes NaN or infinite.

    A run can also diverge and stay finite. It is warned of at the end: where the mean loss of the last mini-batches
    and the validation loss are both above the loss before the first update, which no optimum is. The first alone would
    be noise where mini-batches are few and small, the second alone may be overfitting.
    """

    def __init__(self) -> None:
        self.start: list[float] = []  # loss of each classifier before its first update
        self.last: list[float] = []  # mean loss of the last mini-batches that each trained on

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: LinearClassifier, outputs: dict[str, Tensor], batch: Block, batch_idx: int
    ) -> None:
        if (losses := outputs.get("loss")) is None:
            return  # a solver that looks for lower values alone
        self.check("loss/train", losses, batch.first, pl_module)
        self.start = self.start or losses[0].tolist()
        means, active = losses.mean(0).tolist(), pl_module.active.tolist()
        self.last = [mean if on else last for mean, on, last in zip(means, active, self.last or means, strict=True)]

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.check("loss/val", pl_module.metrics["loss/val"][None], trainer.global_step, pl_module)

    def check(self, name: str, losses: Tensor, first: int, model: LinearClassifier) -> None:
        """Checks ``losses (B, L)``, the first row of which was measured after ``first`` updates."""
        wrong = ~torch.isfinite(losses) & model.moved.to(losses.device)
        if wrong.any():
            row, path = wrong.nonzero()[0].tolist()
            loss, l2 = losses[row, path].item(), model.hparams["l2"][path]
            raise InputError(
                f"{name} is {loss} at l2={l2:g} after {first + row} updates: training diverged; try a smaller lr"
            )

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        val = pl_module.metrics["loss/val"].tolist() if pl_module.metrics else self.last
        rows = zip(pl_module.hparams["l2"], self.start, self.last, val, strict=bool(self.start))
        worse = [(l2, start, last) for l2, start, last, of_val in rows if min(last, of_val) > start]
        if worse and trainer.is_global_zero:
            told = ", ".join(f"{last:.4g} at l2={l2:g} ({start:.4g})" for l2, start, last in worse[:NAMED])
            more = f" and {len(worse) - NAMED} more" if len(worse) > NAMED else ""
            log.warning("loss/train ended above its start: %s%s: training diverged; try a smaller lr", told, more)

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start, self.last = state_dict["start"], state_dict["last"]
