"""Faults that can be planted into a process before it resumes a run, and deaths it can be told to die.

A trial is worth something if it fails where resume has a fault. Each fault here takes away, or shifts, one thing that
a run needs to go on.
"""

import itertools
import math
import os
import signal
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from typing import Any

import pytorch_lightning as pl

from handgrad.compat import begin_epochs
from handgrad.data.blocks import BlockLoader
from handgrad.loggers.tensorboard import TensorBoardPathLogger
from handgrad.runs.checkpoint import WholeCheckpointIO


def kill_at_save(number: int) -> None:
    """Makes the process kill itself when it is about to save its checkpoint ``number``, counted from 1.

    The curves are on disk by then, and reach further than the checkpoint before, which is all that is left.
    """
    save, numbers = WholeCheckpointIO.save_checkpoint, itertools.count(1)

    def killing(self: WholeCheckpointIO, *args: Any, **kwargs: Any) -> None:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, *args, **kwargs)

    WholeCheckpointIO.save_checkpoint = killing


def change_loaded(change: Callable[[dict[str, Any]], None]) -> None:
    """Makes every checkpoint that is loaded go through ``change``."""
    load = WholeCheckpointIO.load_checkpoint

    def changed(self: WholeCheckpointIO, *args: Any, **kwargs: Any) -> dict[str, Any]:
        checkpoint = load(self, *args, **kwargs)
        change(checkpoint)
        return checkpoint

    WholeCheckpointIO.load_checkpoint = changed


def forget(place: str, start: float) -> None:
    """Makes the tensor at ``place`` of a checkpoint what it was at the run's ``start``, as if it were not restored."""

    def reset(checkpoint: dict[str, Any]) -> None:
        reduce(getitem, place.strip("/").split("/"), checkpoint).fill_(start)

    change_loaded(reset)


def miscount_epochs() -> None:
    """Makes Lightning believe that an epoch more is behind."""

    def miscount(checkpoint: dict[str, Any]) -> None:
        begin_epochs(checkpoint, checkpoint["loops"]["fit_loop"]["epoch_progress"]["total"]["completed"] + 1)

    change_loaded(miscount)


def miscount_updates() -> None:
    """Makes Lightning believe that a mini-batch less is behind."""

    def miscount(checkpoint: dict[str, Any]) -> None:
        checkpoint["loops"]["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]["completed"] -= 1

    change_loaded(miscount)


SHIFTS: dict[str, Callable[[int, int], int]] = {  # by how many updates; of the first one, and the number per epoch
    "from the first epoch's start": lambda first, batches: -first,
    "from its epoch's start": lambda first, batches: -(first % batches),
    "of the next epoch": lambda first, batches: batches,
}


def shift_samples(name: str) -> None:
    """Makes the process train on the mini-batches of other updates."""
    minibatch = BlockLoader.minibatch

    def shifted(self: BlockLoader, update: int) -> Any:
        first = vars(self).setdefault("first_of_all", update)
        return minibatch(self, update + SHIFTS[name](first, self.batches))

    BlockLoader.minibatch = shifted


def misplace_curves(updates: int) -> None:
    """Makes curves void from too early on or, where ``updates`` is above 0, too late."""
    resume = TensorBoardPathLogger.resume
    TensorBoardPathLogger.resume = lambda self, step, *of_path: resume(self, step + updates, *of_path)


def keep_void_curves() -> None:
    """Makes what was logged after the checkpoint stay."""
    TensorBoardPathLogger.resume = lambda self, *steps: None


def begin_anew() -> None:
    """Makes a run begin from nothing instead of its checkpoint."""
    fit = pl.Trainer.fit
    pl.Trainer.fit = lambda self, *args, ckpt_path=None, **kwargs: fit(self, *args, **kwargs)


# The places in a checkpoint, and what stands there when training begins.
STATE = {"weight": 0, "bias": 0, "active": 1, "steps": 0, "best_step": 0, "best_weight": 0, "best_bias": 0}
PLACES = {f"/state_dict/{name}": start for name, start in STATE.items()}
PLACES |= {"/best_loss": math.inf, "/callbacks/PathEarlyStopping/wait": 0}
MEMORIES = {"sgd": ["momentum_buffer"], "adam": ["step", "exp_avg", "exp_avg_sq"]}


def places(optimizer: str) -> dict[str, float]:
    """Returns each place of what a run by this optimizer remembers, with what stands there when training begins."""
    names = [f"{parameter}.{name}" for parameter in ("weight", "bias") for name in MEMORIES[optimizer]]
    return PLACES | {f"/solver/memory/{name}": 0 for name in names}


FAULTS: dict[str, Callable[[], None]] = {
    "an epoch too many is behind": miscount_epochs,
    "an update too few is behind": miscount_updates,
    **{f"samples {name}": partial(shift_samples, name) for name in SHIFTS},
    "curves are void an update too early": partial(misplace_curves, -1),
    "curves are void an update too late": partial(misplace_curves, 1),
    "no curves are void": keep_void_curves,
}


def faults(optimizer: str) -> dict[str, Callable[[], None]]:
    """Returns what makes resume go wrong, by name."""
    return FAULTS | {f"{place} is lost": partial(forget, place, start) for place, start in places(optimizer).items()}
