"""The processes of a distributed run, and the processor cores that each may use."""

import os
import re

import torch
from torch import Tensor

from handgrad.runs.launch import launched


def total(tensor: Tensor) -> Tensor:
    """Adds ``tensor`` up over all processes, in place; returns it. NCCL does that on devices alone: it goes by one."""
    there = tensor.cuda() if torch.distributed.get_backend() == "nccl" else tensor
    torch.distributed.all_reduce(there)
    return tensor if there is tensor else tensor.copy_(there)


def is_connection_error(error: BaseException) -> bool:
    """Tells whether an error is that of a sum, or a store, whose other end is gone; torch has plain RuntimeErrors."""
    return isinstance(error, RuntimeError) and ("/gloo/" in str(error) or type(error).__name__.startswith("Dist"))


def cores(local_processes: int = 1) -> int:
    """Returns the number of cores that this process may use.

    torchrun, srun and a parallel sweep tell a process its share; else it is that of ``local_processes``.
    """
    found = launched()
    of_task = ["SLURM_CPUS_PER_TASK"] if found and found.variable == "SLURM_STEP_NUM_TASKS" else []
    for name in ("OMP_NUM_THREADS", *of_task):
        told = os.environ.get(name, "").partition(",")[0]
        if re.fullmatch(r"[0-9]{1,9}", told) and int(told) > 0:
            return int(told)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed // local_processes)
