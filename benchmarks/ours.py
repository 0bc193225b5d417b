"""Runs of this project as ``python train.py`` makes them, but in this process, with stopwatches."""

import functools
import io
import logging
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

import train
from benchmarks.harness import ROOT, scratch
from benchmarks.peers import End, Problem
from handgrad.cli.configuration import check, composed
from handgrad.data.blocks import BlockLoader
from handgrad.data.mnist import MNISTDataModule
from handgrad.fit import fit
from handgrad.functions.objective import Objective
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.solvers import first_order
from handgrad.training.pipeline import Part


class Screen(io.StringIO):
    """A terminal that nobody sees: progress bars are drawn for it."""

    def isatty(self) -> bool:
        return True


@contextmanager
def screen() -> Iterator[None]:
    """Hides what a run says, without the progress bar noticing; Lightning's and torch's warnings too."""
    levels = [(log, log.level) for log in map(logging.getLogger, ("pytorch_lightning", "handgrad"))]
    with redirect_stdout(Screen()), redirect_stderr(Screen()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log, _ in levels:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log, level in levels:
                log.setLevel(level)


# What ``fit`` is called with for the training alone.
BARE: dict[str, Any] = {"callbacks": [], "logger": None, "folder": None, "limit_val_batches": 0}


def configure(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """Composes the configuration of ``python train.py *overrides`` for a run in ``folder``."""
    return composed([f"data.root={ROOT / 'data'}", *overrides], folder)


def problem(overrides: Sequence[str]) -> Problem:
    """Returns the data and the order of the mini-batches of a run, for the peers."""
    cfg = configure(Path(), overrides)
    data = instantiate(cfg.data)
    read_once(data)
    position = torch.arange(len(data.train[1]))
    loader = BlockLoader(
        position,
        position,
        batch_size=data.batch_size,
        epochs=data.epochs,
        check_interval=data.check_interval,
        shuffle=data.shuffle,
        seed=data.seed,
        step=lambda: 0,
    )
    batches = [loader.minibatch(update)[1] for update in range(data.total_updates)]
    return Problem(
        data.train, data.val, batches, data.check_interval, len(batches), data.num_classes, cfg.lr, data.epochs
    )


class Profile:
    """Seconds spent in named functions, each without what other named functions took inside it.

    A name that starts with ``>`` is a part of the function it was called from. Only the main thread is watched: what
    others do meanwhile is time that it waits.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._names, self._inner = [""], [0.0]  # of the functions that are running

    def watched(self, name: str, function: Callable) -> Callable:
        """Returns ``function`` with a stopwatch."""

        @functools.wraps(function)
        def watched(*args, **kwargs):
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)
            self._names.append(f"{self._names[-1]} {name}" if name.startswith(">") else name)
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[self._names.pop()] += took - self._inner.pop()
                self._inner[-1] += took

        return watched

    def watch(self, name: str, owner: object, attribute: str) -> None:
        """Replaces ``owner.attribute`` by itself with a stopwatch."""
        setattr(owner, attribute, self.watched(name, getattr(owner, attribute)))

    def watch_until(self, stack: ExitStack, name: str, owner: object, attribute: str) -> None:
        """Does so until ``stack`` puts the original back."""
        stack.enter_context(patch.object(owner, attribute, self.watched(name, getattr(owner, attribute))))


def watch_run(profile: Profile, stack: ExitStack, trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Watches what happens once per check: little enough to be left on in every run."""
    profile.watch_until(stack, "updates", Part, "train")
    profile.watch("updates", model, "training_step")
    profile.watch("evaluation", model, "validation_step")
    profile.watch("evaluation", model, "on_validation_epoch_end")
    for callback in trainer.callbacks:
        for hook in dir(pl.Callback):
            if hook.startswith("on_") and getattr(type(callback), hook) is not getattr(pl.Callback, hook):
                profile.watch(type(callback).__name__, callback, hook)


def watch_update(profile: Profile, stack: ExitStack) -> None:
    """Watches what updates and evaluations consist of, which slows them down a little."""
    profile.watch_until(stack, "> mini-batch", BlockLoader, "minibatch")
    profile.watch_until(stack, "> gradient", Objective, "gradient")
    profile.watch_until(stack, "> loss_and_hits", LinearClassifier, "loss_and_hits")
    profile.watch_until(stack, "> hits", LinearClassifier, "hits")
    original = first_order.bare_step

    def bare_step(optimizer: torch.optim.Optimizer) -> Callable:
        return profile.watched("> optimizer.step", original(optimizer))

    stack.enter_context(patch.object(first_order, "bare_step", bare_step))


@dataclass
class Run:
    """One run: where its time went, and what each classifier ended at.

    Attributes:
        whole, fit: seconds of the whole call, and of ``Trainer.fit`` in it.
        cpu: processor seconds of ``Trainer.fit``, of all threads.
        profile: seconds of the parts of ``Trainer.fit``, by name.
        ends: of the last check; empty where there was none.
        checks: their number.
    """

    whole: float
    fit: float
    cpu: float
    profile: dict[str, float]
    ends: list[End]
    checks: int

    @property
    def end(self) -> End:
        """What the first classifier ended at."""
        return self.ends[0]


class Trained(Exception):
    """Ends a run that is not to be tested."""


def run(overrides: Sequence[str], *, alone: bool = False, test: bool = False, detail: bool = False) -> Run:
    """Makes the run of ``python train.py *overrides`` in a folder that is removed afterwards.

    Args:
        alone: whether it is the training alone, without evaluations, logger and callbacks.
        test: whether it is whole: it reads the data itself, and is evaluated after the training. Else the data is in
            memory before its clock runs.
        detail: whether each update is watched from inside.
    """
    stopwatch = Stopwatch(MNISTDataModule.setup if test else read_once, detail)
    threads = torch.get_num_threads()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        stack.enter_context(screen())
        stack.enter_context(patch.object(pl.Trainer, "fit", stopwatch.around(pl.Trainer.fit)))
        if not test:
            stack.enter_context(patch.object(pl.Trainer, "test", side_effect=Trained))
        cfg = configure(folder, overrides)
        check(cfg)
        start = time.perf_counter()
        with suppress(Trained):
            fit(**train.arguments(cfg, folder) | (BARE if alone else {}))
        whole = time.perf_counter() - start
    torch.set_num_threads(threads)
    return stopwatch.run(whole)


class Stopwatch:
    """Times ``Trainer.fit`` and what happens in it.

    Args:
        setup: reads the data, before the clock runs.
        detail: whether each update is watched from inside.
    """

    def __init__(self, setup: Callable[[MNISTDataModule], None], detail: bool) -> None:
        self.setup, self.detail = setup, detail
        self.profile = Profile()

    def around(self, original: Callable) -> Callable:
        """Returns ``Trainer.fit`` with this stopwatch."""

        def fit(trainer: pl.Trainer, model: LinearClassifier, datamodule: MNISTDataModule, **kwargs: Any) -> None:
            self.setup(datamodule)
            with ExitStack() as stack:
                watch_run(self.profile, stack, trainer, model)
                if self.detail:
                    watch_update(self.profile, stack)
                self.model, self.checks = model, count_calls(model, "on_validation_epoch_end")
                start, cpu = time.perf_counter(), time.process_time()
                original(trainer, model, datamodule=datamodule, **kwargs)
                self.seconds, self.cpu = time.perf_counter() - start, time.process_time() - cpu

        return fit

    def run(self, whole: float) -> Run:
        """Returns what was found, given the seconds of the whole call."""
        profile, metrics = dict(self.profile.seconds), self.model.metrics
        profile["Lightning and the rest"] = self.seconds - sum(profile.values())
        losses, accuracies = (metrics[name].tolist() if metrics else [] for name in ("loss/val", "accuracy/val"))
        ends = list(zip(losses, accuracies, strict=True))
        return Run(whole, self.seconds, self.cpu, profile, ends, self.checks())


_read: dict[tuple, dict] = {}


def read_once(data: MNISTDataModule) -> None:
    """Does what ``data.setup()`` does, with the tensors of an earlier run where these are the same."""
    key = (data.split, *data.classes, data.batch_size, data.epochs, data.train_size)
    if key not in _read:
        data.setup()
        names = ("train", "val", "test", "batches", "check_interval", "total_updates")
        _read[key] = {name: getattr(data, name) for name in names}
    vars(data).update(_read[key])


def count_calls(owner: object, attribute: str) -> Callable[[], int]:
    """Counts the calls of ``owner.attribute`` from now on; returns what tells their number."""
    calls = 0
    function = getattr(owner, attribute)

    @functools.wraps(function)
    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return function(*args, **kwargs)

    setattr(owner, attribute, counted)
    return lambda: calls
