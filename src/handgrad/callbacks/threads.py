"""Chooses the numbers of processor threads."""

import logging
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytorch_lightning as pl
import torch

from handgrad.models.linear_classifier import LinearClassifier, in_turn
from handgrad.models.speculation import Speculation

log = logging.getLogger(__name__)


class Threads(pl.Callback):
    """Shares the processor out: to parts of the sets that are evaluated, and to the next block's updates meanwhile.

    Each part has one thread, so that threads wait for one another at a check's end only. Two that meet at every small
    matrix product gain little, and lose much when a neighbour takes a core. Everything has one thread in precision
    bf16-mixed, and updates do in a distributed run.

    Args:
        count: number of threads, or ``"auto"``: a thread for every core that the process may use, in a distributed run
            this process's share of them.
    """

    def __init__(self, count: int | str) -> None:
        self.wanted = count
        self.pool: ThreadPoolExecutor | None = None

    def setup(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        self.count = max(1, cores() // trainer.num_devices) if self.wanted == "auto" else self.wanted
        torch.set_num_threads(1)
        on_cpu = trainer.strategy.root_device.type == "cpu"
        autocast = trainer.precision == "bf16-mixed"  # holds for the one thread that switched it on
        self.side_by_side = on_cpu and not autocast
        if self.count > 1 and self.side_by_side:
            self.pool = ThreadPoolExecutor(self.count - 1, initializer=torch.set_num_threads, initargs=(1,))
            pl_module.run_all = self.run_all

    def teardown(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        pl_module.run_all, pl_module.speculation = in_turn, None
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def run_all(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Makes all calls, in all threads: each makes the next one as soon as it is free; returns what they return."""
        results = [None] * len(calls)
        left = iter(range(len(calls)))

        def work() -> None:
            try:
                for index in left:
                    results[index] = calls[index]()
            finally:
                list(left)  # after an error nothing is begun any more

        others = [self.pool.submit(work) for _ in range(self.count - 1)]
        work()
        for other in others:
            other.result()
        return results

    def on_exception(self, trainer: pl.Trainer, pl_module: LinearClassifier, exception: BaseException) -> None:
        self.teardown(trainer, pl_module, "fit")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.side_by_side and trainer.world_size == 1:
            pl_module.speculation = Speculation(pl_module, ahead=self.pool is not None)
        ahead = ", the next block's updates meanwhile" if pl_module.speculation and self.pool else ""
        log.info("Threads: %d for an evaluation%s; 1 for an update", self.count if self.pool else 1, ahead)

    def state_dict(self) -> dict[str, Any]:
        return {"torch": str(torch.__version__), "machine": platform.machine()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
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
