"""A progress bar that counts updates."""

import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TextIO

import pytorch_lightning as pl
from tqdm import tqdm

from handgrad.callbacks.checkpointing import unit
from handgrad.data.base import datamodule_of
from handgrad.models.linear_classifier import LinearClassifier

NARROW = 100  # columns, below which the rate makes room for the loss
WITHOUT_RATE = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Above:
    """A stream to the terminal of whose text a bar makes way: it stands above the bar, which is drawn again."""

    def __init__(self, stream: TextIO, bar: tqdm) -> None:
        self.stream, self.bar = stream, bar

    def write(self, text: str) -> None:
        with tqdm.external_write_mode(file=self.bar.fp):
            self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()


@contextmanager
def log_above(bar: tqdm) -> Iterator[None]:
    """Puts the lines that the log has for the terminal above a bar."""
    found = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    streams = {handler: handler.stream for handler in found if is_terminal(handler.stream)}
    for handler, stream in streams.items():
        handler.setStream(Above(stream, bar))
    try:
        yield
    finally:
        for handler, stream in streams.items():
            handler.setStream(stream)


def is_terminal(stream: TextIO | None) -> bool:
    with suppress(AttributeError, ValueError):  # a file that is not open yet, or is closed
        return stream.isatty()  # type: ignore[union-attr]
    return False


def is_alone() -> bool:
    """Tells whether no other process of a parallel sweep would draw on the same line of the terminal."""
    return multiprocessing.current_process().name == "MainProcess"


class UpdateProgressBar(pl.callbacks.ProgressBar):
    """Shows updates made out of all, and the latest check's best validation loss; lines of the log stand above it.

    Where classifiers are solved one after the other: how many of them are, and the latest one's gap. It is hidden
    without a terminal, and in the workers of a parallel sweep, which share one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.enabled = True
        self.bar: tqdm | None = None
        self.around = ExitStack()

    def disable(self) -> None:
        self.enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        data = datamodule_of(trainer)
        shown = self.enabled and trainer.is_global_zero and is_alone()
        hidden = None if shown else True  # None: hidden without a terminal
        self.bar = tqdm(total=data.total_updates, initial=trainer.global_step, disable=hidden, unit=f" {unit(trainer)}")
        if not self.bar.disable:
            if (self.bar.ncols or NARROW) < NARROW:
                self.bar.bar_format = WITHOUT_RATE
            self.around.enter_context(log_above(self.bar))

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
        self.around.close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        self.close()
