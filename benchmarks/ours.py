"""Runs of this project as ``python train.py`` makes them, but in this process, with a stopwatch."""

import functools
import io
import logging
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

import train
from benchmarks.harness import ROOT, scratch
from benchmarks.peers import End, Problem
from handgrad.data.blocks import BlockLoader
from handgrad.data.mnist import MNISTDataModule
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.models.speculation import Part


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


def configure(folder: Path, overrides: Sequence[str]) -> DictConfig:
    """Composes the configuration of ``python train.py *overrides`` for a run in ``folder``."""
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        cfg = compose("config", [f"data.root={ROOT / 'data'}", *overrides], return_hydra_config=True)
    cfg.hydra.runtime.output_dir = str(folder)
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg.hydra
    return cfg


def bare(cfg: DictConfig) -> DictConfig:
    """Leaves the training alone: no evaluations, no logger, no callbacks but the one that sets the threads."""
    with open_dict(cfg):
        cfg.callbacks, cfg.logger = {"threads": cfg.callbacks.threads}, None
        cfg.trainer.limit_val_batches = 0
        cfg.trainer.enable_checkpointing = cfg.trainer.enable_progress_bar = False
    return cfg


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

    def watch(self, name: str, owner: object, attribute: str) -> None:
        """Replaces ``owner.attribute`` by itself with a stopwatch."""
        function = getattr(owner, attribute)

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

        setattr(owner, attribute, watched)


def watch_run(profile: Profile, stack: ExitStack, trainer: pl.Trainer, model: pl.LightningModule) -> None:
    """Watches what happens once per check: little enough to be left on in every run."""
    watch_classes(profile, stack, {"updates": (Part, "train")})
    profile.watch("updates", model, "training_step")
    profile.watch("evaluation", model, "validation_step")
    profile.watch("evaluation", model, "on_validation_epoch_end")
    for callback in trainer.callbacks:
        for hook in dir(pl.Callback):
            if hook.startswith("on_") and getattr(type(callback), hook) is not getattr(pl.Callback, hook):
                profile.watch(type(callback).__name__, callback, hook)


def watch_update(profile: Profile, stack: ExitStack) -> None:
    """Watches what updates and evaluations consist of, which slows them down a little."""
    classes = {
        "> mini-batch": (BlockLoader, "minibatch"),
        "> differentiate": (LinearClassifier, "differentiate"),
        "> backward": (torch.autograd, "backward"),
        "> optimizer.step": (torch.optim.SGD.step, "__wrapped__"),
        "> loss_and_hits": (LinearClassifier, "loss_and_hits"),
        "> hits": (LinearClassifier, "hits"),
    }
    watch_classes(profile, stack, classes)


def watch_classes(profile: Profile, stack: ExitStack, classes: Mapping[str, tuple[object, str]]) -> None:
    """Watches functions until ``stack`` puts the originals back."""
    for name, (owner, attribute) in classes.items():
        stack.enter_context(patch.object(owner, attribute, getattr(owner, attribute)))
        profile.watch(name, owner, attribute)


@dataclass
class Run:
    """One run: seconds of the whole call and of ``fit``, where these went, and what each classifier ended at."""

    whole: float
    fit: float
    profile: dict[str, float]
    ends: list[End]
    checks: int

    @property
    def end(self) -> End:
        """What the first classifier ended at."""
        return self.ends[0]


def run(overrides: Sequence[str], *, alone: bool = False, test: bool = False, detail: bool = False) -> Run:
    """Makes a run in a folder that is removed afterwards; ``alone``: see ``bare``, the others: see ``run_in``."""
    with scratch() as folder:
        cfg = configure(folder, overrides)
        return run_in(folder, bare(cfg) if alone else cfg, test=test, detail=detail)


def run_in(folder: Path, cfg: DictConfig, *, test: bool, detail: bool) -> Run:
    """Calls ``train.train(cfg, folder)`` with a stopwatch on ``Trainer.fit``, before which the data is read.

    Args:
        test: whether the run is to be whole: it reads the data itself, and is evaluated after the training.
        detail: whether each update is watched from inside.
    """
    profile, found = Profile(), {}
    original = pl.Trainer.fit
    setup = MNISTDataModule.setup if test else read_once

    def fit(trainer: pl.Trainer, model: pl.LightningModule, datamodule: pl.LightningDataModule, **kwargs) -> None:
        setup(datamodule)
        with ExitStack() as stack:
            watch_run(profile, stack, trainer, model)
            if detail:
                watch_update(profile, stack)
            found["checks"] = count_calls(model, "on_validation_epoch_end")
            start = time.perf_counter()
            original(trainer, model, datamodule=datamodule, **kwargs)
            found["fit"] = time.perf_counter() - start
        found["model"] = model

    threads = torch.get_num_threads()
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(screen())
        stack.enter_context(patch.object(pl.Trainer, "fit", fit))
        if not test:
            stack.enter_context(patch.object(pl.Trainer, "test"))
        train.train(cfg, folder)
    whole = time.perf_counter() - start
    torch.set_num_threads(threads)
    metrics = found["model"].metrics
    ends = list(zip(*(metrics[name].tolist() for name in ("loss/val", "accuracy/val")), strict=True)) if metrics else []
    profile.seconds["Lightning and the rest"] = found["fit"] - sum(profile.seconds.values())
    return Run(whole, found["fit"], dict(profile.seconds), ends, found["checks"]())


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
