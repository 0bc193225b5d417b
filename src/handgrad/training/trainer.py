"""Lightning's Trainer, set up for blocks of mini-batches."""

import warnings
from typing import Any

import pytorch_lightning as pl

# Lightning 2.6.6 uses what torch 2.14 calls deprecated; nothing the user could do about it.
warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec", category=FutureWarning)


def block_trainer(**settings: Any) -> pl.Trainer:
    """Returns a Trainer for which a batch is a block of mini-batches that ends where the next check is due.

    Args:
        settings: passed on to ``Trainer``; what the blocks fix is not to be set.
    """
    return pl.Trainer(
        val_check_interval=1,  # a check after every block
        min_epochs=0,  # 1 would put a stop off to the epoch's end
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module shares each mini-batch out by itself
        enable_model_summary=False,
        log_every_n_steps=1,
        **settings,
    )
