"""Early stopping of each classifier of a path by its own validation loss."""

import logging
from typing import Any

import pytorch_lightning as pl
import torch

from handgrad.errors import InputError
from handgrad.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class PathEarlyStopping(pl.Callback):
    """Stops a classifier after ``patience`` checks in a row without a smaller validation loss.

    A stopped classifier no longer changes; the run ends when all have stopped.

    Args:
        patience: number of checks, or None: nothing is stopped.
    """

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self.wait: torch.Tensor | None = None  # checks in a row without a smaller loss, (L,)

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.wait is None:
            self.wait = torch.zeros_like(pl_module.steps)
        if not isinstance(self.wait, torch.Tensor) or self.wait.shape != pl_module.steps.shape:
            raise InputError(f"the checkpoint's wait is not a number for each of {len(pl_module.steps)} classifiers")
        self.wait = self.wait.to(pl_module.steps.device)
        trainer.should_stop = not pl_module.active.any()  # a resumed run may have stopped already

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.patience is None:
            return
        assert self.wait is not None
        improved = pl_module.best_step == pl_module.steps
        self.wait = torch.where(improved, 0, self.wait + 1)
        stopping = (self.wait >= self.patience) & (pl_module.active > 0)
        pl_module.active[stopping] = 0
        for path in stopping.nonzero().flatten().tolist():
            l2, best = pl_module.hparams["l2"][path], pl_module.best_step[path].item()
            told = "l2=%g stopped after %d updates; its validation loss was best after %d"
            log.info(told, l2, trainer.global_step, best)
        trainer.should_stop = not pl_module.active.any()

    def state_dict(self) -> dict[str, Any]:
        return {"wait": self.wait}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.wait = state_dict["wait"]
