"""Writes the learning curves."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytorch_lightning as pl
from torch import Tensor

from handgrad.data.blocks import Block
from handgrad.errors import InputError
from handgrad.files import NOWHERE
from handgrad.loggers.curve_file import CurveFile
from handgrad.loggers.tensorboard import path_logger_of
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.runs.folder import CURVES


class Curves(pl.Callback):
    """Logs what the solver tells of each update, like the loss before it (``loss/train``), and what every check found.

    They go to the logger and, where the run has a folder, into its ``curves.csv``. x is the number of updates that the
    classifier has made, its own included.

    A classifier that has stopped is not logged any more, as if its run had ended.
    """

    def __init__(self) -> None:
        self.file: CurveFile | None = None
        self.goes_on = False  # from a checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        folder = Path(trainer.default_root_dir)
        if stage == "fit" and folder != NOWHERE and trainer.is_global_zero:
            self.file = CurveFile(folder / CURVES, pl_module.hparams["l2"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.file and not self.goes_on:
            self.file.resume(0)
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
        points = len(next(iter(outputs.values())))
        first = updates_made(pl_module) - points + 1
        self.write(trainer, pl_module, first, {f"{name}/train": values for name, values in outputs.items()})

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        metrics = {name: values[None] for name, values in pl_module.metrics.items()}
        self.write(trainer, pl_module, updates_made(pl_module), metrics)

    def write(self, trainer: pl.Trainer, model: LinearClassifier, first: int, curves: Mapping[str, Tensor]) -> None:
        for log in (path_logger_of(trainer), self.file):
            if log:
                log.log_path(first, curves, model.moved)

    def state_dict(self) -> dict[str, int]:
        """Saves the curves first, so that those on disk reach as far as the checkpoint."""
        return {"saved": self.file.save()} if self.file else {}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        if self.file and state_dict:
            self.file.resume(state_dict["saved"])
            self.goes_on = True

    def teardown(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        if self.file and stage == "fit":
            self.file.finish()

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        """Leaves the curves of a run that has begun, whose folder stays: one that diverged, or was stopped."""
        if self.file and self.file.size:
            with suppress(InputError, OSError):  # the disk may be what ended the run
                self.file.finish()


def updates_made(model: LinearClassifier) -> int:
    """Returns how many updates have been made by each classifier that the latest block worked on."""
    return int(model.steps[model.moved].max())
