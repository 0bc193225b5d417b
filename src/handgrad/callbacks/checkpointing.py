"""Keeps the run's checkpoints, from which it can go on, and ends it in order when it is told to stop."""

import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from handgrad.compat import begin_epochs, launched_processes
from handgrad.data.base import datamodule_of
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.folder import BEST, LAST
from handgrad.runs.signals import Interrupted, stopping

log = logging.getLogger(__name__)


class Checkpointing(pl.Callback):
    """Saves ``last.ckpt`` after checks and ``best.ckpt``, with each classifier's best weights, at the end.

    They go below the trainer's ``default_root_dir``, the run's folder. SIGTERM, SIGUSR1 and SIGINT (Ctrl-C) are
    obeyed at the next check: ``last.ckpt`` is saved and Interrupted raised. In a distributed run all processes do so
    together, whichever of them has got the signal.

    Args:
        every_seconds: least time between two saves; 0 saves after every check.
    """

    def __init__(self, every_seconds: float = 5.0) -> None:
        self.every_seconds = every_seconds

    def setup(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        stopping.put_off = stage == "fit"

    def teardown(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        stopping.put_off = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.saved_at = time.monotonic()
        stopping.take_back()
        first, total = trainer.global_step + 1, datamodule_of(trainer).total_updates
        log.info("Training from %s %d of %d", unit(trainer)[:-1], first, total)

    def on_test_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        """Saves the best weights here: a run that was killed after its last update has no end of training any more.

        They are for features as they are: a normalization by columns is folded into them.
        """
        stopping.take_back()
        with pl_module.best_as_given(datamodule_of(trainer).normalization):
            trainer.save_checkpoint(Path(trainer.default_root_dir) / BEST, weights_only=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        """Ends the other processes of a distributed run, which would wait for this one for ever."""
        stopping.put_off = False
        others = launched_processes(trainer)
        for process in others:
            process.kill()
            process.wait()
        others.clear()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        number, due = agreed(trainer, time.monotonic() - self.saved_at >= self.every_seconds)
        if number or due:
            self.save_last(trainer)
            self.saved_at = time.monotonic()
        self.obey(trainer, number)

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.save_last(trainer)
        self.obey(trainer, agreed(trainer)[0])

    def obey(self, trainer: pl.Trainer, number: int) -> None:
        """Raises Interrupted if a signal has come, of that number."""
        if number:
            done = f"{trainer.global_step} {unit(trainer)}"
            raise Interrupted(number, Path(trainer.default_root_dir), done if trainer.global_step else "")

    def save_last(self, trainer: pl.Trainer) -> None:
        if trainer.logger:
            trainer.logger.save()  # so that the curves on disk reach at least as far as the checkpoint
        trainer.save_checkpoint(Path(trainer.default_root_dir) / LAST, weights_only=False)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: LinearClassifier, checkpoint: dict[str, Any]) -> None:
        begin_epochs(checkpoint, trainer.global_step // datamodule_of(trainer).batches)


def agreed(trainer: pl.Trainer, due: bool = False) -> tuple[int, bool]:
    """Returns what all processes agree on: a signal that any of them has got, or 0, and whether a save is due.

    Args:
        due: whether it is by this process's clock; the first one's counts.
    """
    mine = torch.tensor([stopping.signal or 0, due and trainer.is_global_zero], device=trainer.strategy.root_device)
    number, is_due = trainer.strategy.reduce(mine, reduce_op="max").tolist()
    return number, bool(is_due)


def unit(trainer: pl.Trainer) -> str:
    """Returns what Lightning's ``global_step`` counts."""
    return "l2 values" if datamodule_of(trainer).one_at_a_time else "updates"
