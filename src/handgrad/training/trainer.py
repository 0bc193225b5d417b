"""Lightning's Trainer, set up for blocks of mini-batches."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.environments import SLURMEnvironment, TorchElasticEnvironment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from handgrad.compat import ignore_known_warnings
from handgrad.files import NOWHERE


def block_trainer(
    callbacks: list[pl.Callback], folder: str | Path | None, plugins: Sequence[Any] = (), **settings: Any
) -> pl.Trainer:
    """Returns a Trainer for which a batch is a block of mini-batches that ends where the next check is due.

    Args:
        callbacks: all there are: Lightning adds none of its own.
        folder: of the run, which callbacks find as ``default_root_dir``; None: nothing can be written.
        settings: passed on to ``Trainer``; what is fixed here is not to be set.
    """
    ignore_known_warnings()
    # Under SLURM Lightning would save on SIGUSR1 by itself, and load that in every later run started there.
    alone = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()  # Lightning asks torchrun first
    cluster = [SLURMEnvironment(auto_requeue=False)] if alone else []
    with without_environment():
        trainer = pl.Trainer(
            val_check_interval=1,  # a check after every block
            min_epochs=0,  # 1 would put a stop off to the epoch's end
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module shares each mini-batch out by itself
            enable_model_summary=False,
            log_every_n_steps=1,
            callbacks=callbacks,
            plugins=[*plugins, *cluster],
            enable_checkpointing=False,
            enable_progress_bar=any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
            default_root_dir=folder or NOWHERE,  # else the current folder, to write to and, under SLURM, to load
            **settings,
        )
    # Lightning took it from whatever RANK, SLURM_PROCID or the like it found, and would not let a lone process log.
    rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
    return trainer


@contextmanager
def without_environment() -> Iterator[None]:
    """Hides the variables PL_TRAINER_*, from which Lightning takes arguments that nobody gave."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PL_TRAINER_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
