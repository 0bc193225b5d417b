"""Lightning's Trainer, set up for blocks of mini-batches, and for the processes that were launched."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import ClusterEnvironment, LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from handgrad.compat import ignore_known_warnings
from handgrad.errors import InputError
from handgrad.files import NOWHERE
from handgrad.runs.launch import Launch, launched
from handgrad.runs.meeting import meet
from handgrad.runs.signals import stopping


def block_trainer(
    callbacks: list[pl.Callback],
    folder: str | Path | None,
    plugins: Sequence[Any] = (),
    *,
    strategy: str = "auto",
    peer_timeout: float = 60.0,
    **settings: Any,
) -> pl.Trainer:
    """Returns a Trainer for which a batch is a block of mini-batches that ends where the next check is due.

    Args:
        callbacks: all there are: Lightning adds none of its own.
        folder: of the run, which callbacks find as ``default_root_dir``; None: nothing can be written.
        strategy: ``auto`` or ``ddp``, which ``auto`` is where there are several processes.
        peer_timeout: seconds after which a process that does not come to the others is given up.
        settings: passed on to ``Trainer``; what is fixed here is not to be set.

    Raises:
        InputError: there is no such device.
    """
    check_devices(settings.get("accelerator", "auto"), settings.get("devices", "auto"))
    ignore_known_warnings()
    found = launched()
    several = strategy == "ddp" or (found and found.processes > 1) or settings.get("devices", 1) not in (1, "auto", [0])
    with without_environment():
        trainer = pl.Trainer(
            val_check_interval=1,  # a check after every block
            min_epochs=0,  # 1 would put a stop off to the epoch's end
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data module shares each mini-batch out by itself
            enable_model_summary=False,
            log_every_n_steps=1,
            callbacks=callbacks,
            plugins=[*plugins, Launched(found) if found else Alone()],
            strategy=Together(peer_timeout) if several else strategy,
            enable_checkpointing=False,
            enable_progress_bar=any(isinstance(callback, pl.callbacks.ProgressBar) for callback in callbacks),
            default_root_dir=folder or NOWHERE,  # else the current folder, to write to and, under SLURM, to load
            **settings,
        )
    # Lightning took it from whatever RANK, SLURM_PROCID or the like it found, and would not let a lone process log.
    rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
    return trainer


def check_devices(accelerator: str, devices: Any) -> None:
    """Raises an InputError where there is no device of that kind, or devices of the CPU are named by a list."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kinds = [*(["gpu"] if there["cuda"] or there["mps"] else []), *(kind for kind, found in there.items() if found)]
    if accelerator in ("gpu", *there) and accelerator not in kinds:
        raise InputError(f"trainer.accelerator={accelerator}: no such device here; accepted is {' or '.join(kinds)}")
    on_cpu = accelerator == "cpu" or kinds == ["cpu"]
    if on_cpu and isinstance(devices, Sequence) and not isinstance(devices, str):
        raise InputError(
            f"trainer.devices={list(devices)}: accepted on the CPU is how many processes, as trainer.devices=2"
        )


class Launched(ClusterEnvironment):
    """Tells Lightning which of the processes that were launched this one is; in place of its own for each launcher.

    That for SLURM would save on SIGUSR1 by itself, and load that in every later run started there.

    Args:
        launch: what the environment tells.
    """

    creates_processes_externally = True

    def __init__(self, launch: Launch) -> None:
        super().__init__()
        self.launch = launch

    @property
    def main_address(self) -> str:
        return self.launch.place()[0]

    @property
    def main_port(self) -> int:
        return self.launch.place()[1]

    @staticmethod
    def detect() -> bool:
        return launched() is not None

    def world_size(self) -> int:
        return self.launch.processes

    def set_world_size(self, size: int) -> None:
        """It is the launcher's."""

    def global_rank(self) -> int:
        return self.launch.rank

    def set_global_rank(self, rank: int) -> None:
        """It is the launcher's."""

    def local_rank(self) -> int:
        return self.launch.local_rank

    def node_rank(self) -> int:
        return self.launch.node_rank


class Alone(LightningEnvironment):
    """Tells Lightning that it may start the other processes: on this host, whatever NODE_RANK says."""

    def node_rank(self) -> int:
        return 0


class Together(DDPStrategy):
    """Several processes, which have met before Lightning connects them.

    Args:
        peer_timeout: seconds after which a process that does not come is given up.
    """

    def __init__(self, peer_timeout: float, **others: Any) -> None:
        super().__init__(**others)
        self.peer_timeout = peer_timeout

    def setup_distributed(self) -> None:
        found = launched()  # Lightning has set the variables for those that it has started, and for this one
        assert found is not None
        meeting = meet(found, self.peer_timeout)
        meeting.children = getattr(self.launcher, "procs", ())
        meeting.connect(self.root_device)
        super().setup_distributed()

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        stopping.take_back()  # Lightning's handler would begin a sum that no other process takes part in
        super().barrier(*args, **kwargs)


@contextmanager
def without_environment() -> Iterator[None]:
    """Hides the variables PL_TRAINER_*, from which Lightning takes arguments that nobody gave."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PL_TRAINER_")}
    try:
        yield
    finally:
        os.environ.update(hidden)
