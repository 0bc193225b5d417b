"""A progress bar that counts updates."""

import pytorch_lightning as pl
from tqdm import tqdm

from handgrad.callbacks.checkpointing import unit
from handgrad.data.base import datamodule_of
from handgrad.models.linear_classifier import LinearClassifier


class UpdateProgressBar(pl.callbacks.ProgressBar):
    """Shows updates made out of all, and the latest check's best validation loss; hidden without a terminal.

    Where classifiers are solved one after the other: how many of them are, and the latest one's gap.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.bar: tqdm | None = None

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        data = datamodule_of(trainer)
        hidden = None if self.enabled and trainer.is_global_zero else True  # None: hidden without a terminal
        self.bar = tqdm(total=data.total_updates, initial=trainer.global_step, disable=hidden, unit=f" {unit(trainer)}")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        assert self.bar is not None
        self.bar.update(len(batch))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        assert self.bar is not None
        if self.bar.disable:
            return
        if pl_module.pipeline.one_at_a_time:
            entry = int(pl_module.moved.nonzero()[0])
            gap = pl_module.pipeline.report()["gap"][entry]
            self.bar.set_postfix_str(f"l2={pl_module.hparams['l2'][entry]:g}, gap {gap:.1e}", refresh=False)
        else:
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
