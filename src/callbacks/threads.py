"""Chooses the numbers of processor threads."""

import logging
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytorch_lightning as pl
import torch

from src.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class Threads(pl.Callback):
    """Shares the processor out: to each matrix product of an update, and to the parts of a set that is evaluated.

    The products of a small model take less time than threads need to meet: its updates get one thread. Parts are
    evaluated side by side, each by one thread, which never wait for one another before the end.

    Args:
        count: number of threads, or ``"auto"``: a thread for every core that the process may use.
    """

    SMALL = 1000  # outputs L * K; below, two threads gain little, and lose much when a neighbour takes a core

    def __init__(self, count: int | str) -> None:
        # The jobs of a parallel sweep are told their share of the cores by this variable.
        cores = int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0))))
        self.count = cores if count == "auto" else count
        self.update_threads: int | None = None

    def setup(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        self.pool = ThreadPoolExecutor(self.count, initializer=torch.set_num_threads, initargs=(1,))
        if self.count > 1 and trainer.strategy.root_device.type == "cpu":
            pl_module.map = self.pool.map

    def teardown(self, trainer: pl.Trainer, pl_module: LinearClassifier, stage: str) -> None:
        pl_module.map = map
        self.pool.shutdown()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        if self.update_threads is None:
            self.update_threads = 1 if pl_module.bias.numel() < self.SMALL else self.count
        torch.set_num_threads(self.update_threads)
        log.info("Threads: %d for an update, %d for an evaluation", self.update_threads, self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"threads": self.update_threads, "torch": str(torch.__version__), "machine": platform.machine()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the stopped run's number of threads for an update: another one rounds differently."""
        self.update_threads = state_dict["threads"]
        here = self.state_dict()
        for name in ("torch", "machine"):
            if state_dict[name] != here[name]:
                log.warning(
                    "%s was %s when the run began, is %s now: bits may differ", name, state_dict[name], here[name]
                )
