"""The processes of a distributed run, and the processor cores that each may use."""

import os
import re

import torch
from torch import Tensor


def total(tensor: Tensor) -> Tensor:
    """Adds ``tensor`` up over all processes, in place; returns it. NCCL does that on devices alone: it goes by one."""
    there = tensor.cuda() if torch.distributed.get_backend() == "nccl" else tensor
    torch.distributed.all_reduce(there)
    return tensor if there is tensor else tensor.copy_(there)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # the jobs of a parallel sweep are told their share
    if re.fullmatch(r"[0-9]{1,9}", told) and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
