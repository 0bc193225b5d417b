"""Chooses the number of processor threads."""

import logging
import os
import platform
from typing import Any

import pytorch_lightning as pl
import torch

from src.models.linear_classifier import LinearClassifier

log = logging.getLogger(__name__)


class Threads(pl.Callback):
    """Sets torch's number of threads for the run.

    Args:
        count: the number, or ``"auto"``: one for matrices as small as one classifier's, whose products take less
            time than threads need to meet; else every core that the process may use.
    """

    SMALL = 40  # outputs L * K; from about here two threads are faster than one

    def __init__(self, count: int | str) -> None:
        self.count = count

    def on_fit_start(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        cores = int(
            os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))
        )  # a parallel sweep's jobs get a share
        auto = 1 if pl_module.bias.numel() < self.SMALL else cores
        torch.set_num_threads(auto if self.count == "auto" else self.count)
        log.info("Threads: %d of %d cores", torch.get_num_threads(), cores)

    def state_dict(self) -> dict[str, Any]:
        return {"threads": torch.get_num_threads(), "torch": str(torch.__version__), "machine": platform.machine()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the stopped run's number of threads: another one rounds differently."""
        self.count = state_dict["threads"]
        here = self.state_dict()
        for name in ("torch", "machine"):
            if state_dict[name] != here[name]:
                log.warning(
                    "%s was %s when the run began, is %s now: bits may differ", name, state_dict[name], here[name]
                )
