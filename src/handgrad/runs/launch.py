"""What the environment says of a run's processes: how many were launched, and which one this is."""

import os
import re
from typing import NamedTuple

from handgrad.errors import InputError

RANKS = ("LOCAL_RANK", "RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # what Lightning reads, whoever has set it
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where processes find one another: who launches several sets it


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
    tasks = count("SLURM_STEP_NUM_TASKS", least=1) if "SLURM_STEP_NUM_TASKS" in os.environ else 1
    return Launch("SLURM_STEP_NUM_TASKS", tasks) if tasks > 1 else None


def count(name: str, least: int) -> int:
    """Returns a variable as a number; raises an InputError unless it is a whole one from ``least``."""
    text = os.environ[name]
    if not (is_whole(text) and int(text) >= least):
        raise InputError(f"{name}={text}: in the environment, accepted is a whole number from {least}")
    return int(text)


def check_rank() -> None:
    """Raises an InputError unless the process is one of those that were launched: else nobody would be the first."""
    ranks = {name: count(name, least=0) for name in RANKS if name in os.environ}
    if not (found := launched()):
        return
    total = found.variable
    for name in ("LOCAL_RANK", "RANK"):
        if ranks.get(name, 0) >= found.processes:
            counted = f"{total}={found.processes}" if total in os.environ else f"{total} is not set"
            raise InputError(
                f"{name}={os.environ[name]}: in the environment, where {counted}; accepted is a number below that of "
                f"the processes, which their launcher sets; without a launcher, unset {name}"
            )
    missing = [name for name in MEETING if name not in os.environ]
    if "LOCAL_RANK" in ranks and found.processes > 1 and missing:
        raise InputError(
            f"LOCAL_RANK={os.environ['LOCAL_RANK']}: in the environment, with {total}={found.processes} but without "
            f"{missing[0]}, which a launcher of several processes sets; without a launcher, unset LOCAL_RANK"
        )


def is_first_process() -> bool:
    """Tells the process that speaks and writes from the others of a distributed run."""
    rank = os.environ.get("LOCAL_RANK", "0")
    return is_whole(rank) and int(rank) == 0


def is_whole(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None
