"""Stops a run whose loss is no longer finite, and warns of one that ends above where it began."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)
NAMED = 3  # l2 values in a warning
ABOVE = 1.1  # times the loss of weights that are zero; the noise of a set, or of samples' weights, is below


class DivergenceCheck(pl.Callback):
    """Raises an InputError that names the loss, the l2 value and the update when a loss becomes NaN or infinite.

    A run can also diverge and stay finite. It is warned of at the end: where the mean loss of the last mini-batches
    and the validation loss are both above the loss before the first update, and above ``ABOVE`` times that of weights
    that are zero, which no optimum is. The first alone would be noise where mini-batches are few and small, the second
    alone may be overfitting.

    Nor is it an optimum where the best weights of all have a larger validation loss than weights that are zero, of
    which every class is as probable: of such a classifier it is told in any case, if its solver goes by the loss.
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
        if (loss := pl_module.metrics.get("loss/val")) is not None:  # a cross-validation has no such set
            self.check("loss/val", loss[None], trainer.global_step, pl_module)

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
        val = pl_module.metrics["loss/val"].tolist() if "loss/val" in pl_module.metrics else self.last
        rows = zip(pl_module.hparams["l2"], self.start, self.last, val, strict=bool(self.start))
        zero, best = loss_of_zero(pl_module), pl_module.best_loss.tolist()
        worse = {l2: (last, start) for l2, start, last, of_val in rows if min(last, of_val) > max(start, ABOVE * zero)}
        useless = {
            l2: (loss, zero)
            for l2, loss, _ in zip(pl_module.hparams["l2"], best, self.start, strict=bool(self.start))
            if l2 not in worse and ABOVE * zero < loss < math.inf  # infinite before the first check
        }
        if trainer.is_global_zero:
            warn("loss/train ended above its start", worse, "training diverged")
            of_best = "the best loss/val is above that of weights that are zero"
            warn(of_best, useless, "training diverged, or samples are too few")

    def state_dict(self) -> dict[str, Any]:
        return {"start": self.start, "last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.start, self.last = state_dict["start"], state_dict["last"]


def loss_of_zero(model: LinearClassifier) -> float:
    """Returns the loss of weights that are zero: K ln 2 of sigmoids, ln K of a softmax."""
    outputs = model.bias.shape[1]
    target = torch.zeros((1, outputs) if model.criterion.sigmoids else 1, dtype=torch.int64)
    return model.criterion.plain(torch.zeros(1, outputs, 1, dtype=torch.float64), target).item()


def warn(what: str, losses: Mapping[float, tuple[float, float]], reason: str) -> None:
    """Tells by l2 value the losses that are too large, each with the one that it is compared with."""
    if losses:
        named = [f"{loss:.4g} at l2={l2:g} ({than:.4g})" for l2, (loss, than) in losses.items()][:NAMED]
        more = f" and {len(losses) - NAMED} more" if len(losses) > NAMED else ""
        log.warning("%s: %s%s: %s; try a smaller lr", what, ", ".join(named), more, reason)
