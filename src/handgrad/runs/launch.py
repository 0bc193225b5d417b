"""What the environment says of a run's processes: how many were launched, and which one this is."""

import os
from typing import NamedTuple

from handgrad.errors import InputError


class Launch(NamedTuple):
    """How many processes were launched, and the variable that tells."""

    variable: str
    processes: int


def launched() -> Launch | None:
    """Returns what a launcher tells; None where none does.

    torchrun sets LOCAL_RANK and WORLD_SIZE, as Lightning does for the processes that it adds; srun counts its tasks.

    Raises:
        InputError: the variable is no whole number from 1.
    """
    if "LOCAL_RANK" in os.environ:
        return Launch("WORLD_SIZE", count("WORLD_SIZE", least=1) if "WORLD_SIZE" in os.environ else 1)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    return Launch("SLURM_STEP_NUM_TASKS", count("SLURM_STEP_NUM_TASKS", least=1)) if tasks != "1" else None


def count(name: str, least: int) -> int:
    """Returns a variable as a number; raises an InputError unless it is a whole one from ``least``."""
    text = os.environ[name]
    if not (text.isdecimal() and int(text) >= least):
        raise InputError(f"{name}={text}: in the environment, accepted is a whole number from {least}")
    return int(text)


def check_rank() -> None:
    """Raises an InputError unless the process is one of those that were launched: else nobody would be the first."""
    if not (found := launched()):
        return
    total = found.variable
    for name in ("LOCAL_RANK", "RANK"):
        if name in os.environ and count(name, least=0) >= found.processes:
            counted = f"{total}={found.processes}" if total in os.environ else f"{total} is not set"
            raise InputError(
                f"{name}={os.environ[name]}: in the environment, where {counted}; accepted is a number below that of "
                f"the processes, which their launcher sets; without a launcher, unset {name}"
            )


def is_first_process() -> bool:
    """Tells the process that speaks and writes from the others of a distributed run."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
