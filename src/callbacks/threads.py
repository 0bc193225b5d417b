"""Chooses the numbers of processor threads."""

import logging
import os
import platform
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytorch_lightning as pl
import torch

from src.models.linear_classifier import LinearClassifier
from src.models.speculation import Speculation

log = logging.getLogger(__name__)


class Threads(pl.Callback):
    """Shares the processor out: to the parts of a set that is evaluated, and to updates.

    Parts are evaluated side by side, each by one thread, which never wait for one another before the end. The matrix
    products of a small model take less time than threads need to meet: its updates get one thread, which trains ahead
    and then joins in the evaluation (see ``Speculation``). Those of a large model get all.

    Args:
        count: number of threads, or ``"auto"``: a thread for every core that the process may use, in a distributed run
            this process's share of them.
    """

    SMALL = 1000  # outputs L * K; below, two threads gain little, and lose much when a neighbour takes a core

    def __init__(self, count: int | str) -> None:
        self.wanted = count
        self.update_threads: int | None = None
        self.pool: ThreadPoolExecutor | None = None

    def setup(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        self.count = max(1, cores() // trainer.num_devices) if self.wanted == "auto" else self.wanted
        on_cpu = trainer.strategy.root_device.type == "cpu"
        autocast = trainer.precision == "bf16-mixed"  # holds for the one thread that switched it on
        if self.count > 1 and on_cpu and not autocast:
            self.pool = ThreadPoolExecutor(self.count - 1, initializer=torch.set_num_threads, initargs=(1,))
            pl_module.map = self.map

    def teardown(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        pl_module.map, pl_module.speculation = map, None
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def map(self, function: Callable[..., Any], *arguments: Iterable) -> list[Any]:
        """Does what ``map`` does, in all threads: each makes the next call as soon as it is free."""
        calls = list(zip(*arguments, strict=True))
        results = [None] * len(calls)
        left = iter(range(len(calls)))

        def work() -> None:
            for index in left:
                results[index] = function(*calls[index])

        others = [self.pool.submit(work) for _ in range(self.count - 1)]
        work()
        for other in others:
            other.result()
        return results

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.update_threads is None:
            self.update_threads = 1 if pl_module.bias.numel() < self.SMALL else self.count
        torch.set_num_threads(self.update_threads)
        if self.pool and self.update_threads == 1 and trainer.world_size == 1:
            pl_module.speculation = Speculation(pl_module)
        evaluation, ahead = self.count if self.pool else 1, " made meanwhile" if pl_module.speculation else ""
        log.info("Threads: %d for an evaluation, %d for an update%s", evaluation, self.update_threads, ahead)

    def state_dict(self) -> dict[str, Any]:
        return {"threads": self.update_threads, "torch": str(torch.__version__), "machine": platform.machine()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the stopped run's number of threads for an update: another one rounds differently."""
        self.update_threads = state_dict["threads"]
        here = self.state_dict()
        for name in ("torch", "machine"):
            then, now = state_dict[name], here[name]
            if then != now:
                log.warning("%s was %s when the run began, is %s now: bits may differ", name, then, now)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # the jobs of a parallel sweep are told their share
    if told.isdigit() and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
