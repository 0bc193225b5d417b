"""A progress bar that counts updates."""

import pytorch_lightning as pl
from tqdm import tqdm

from handgrad.data.base import datamodule_of
from handgrad.models.linear_classifier import LinearClassifier


class UpdateProgressBar(pl.callbacks.ProgressBar):
    """Shows updates made out of all, and the latest check's best validation loss; hidden without a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.bar: tqdm | None = None

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        data = datamodule_of(trainer)
        hidden = None if self.enabled and trainer.is_global_zero else True  # None: hidden without a terminal
        self.bar = tqdm(total=data.total_updates, initial=trainer.global_step, disable=hidden, unit=" updates")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert self.bar is not None
        self.bar.update(len(batch))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        assert self.bar is not None
        if not self.bar.disable:
            loss, best = pl_module.metrics["loss/val"].min(0)
            accuracy = pl_module.metrics["accuracy/val"][best]
            data = datamodule_of(trainer)
            epoch = min(trainer.global_step // data.batches + 1, data.epochs)
            self.bar.set_description(f"Epoch {epoch}/{data.epochs}", refresh=False)
            self.bar.set_postfix_str(f"val loss {loss:.4f}, accuracy {accuracy:.4f}", refresh=False)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        self.close()
