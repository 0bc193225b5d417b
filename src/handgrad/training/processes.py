"""The processes of a distributed run, and the processor cores that each may use."""

import os
import re

import torch
from torch import Tensor


def total(tensor: Tensor) -> Tensor:
    """Adds ``tensor`` up over all processes, in place; returns it."""
    torch.distributed.all_reduce(tensor)
    return tensor


def is_connection_error(error: BaseException) -> bool:
    """Tells whether an error is that of a sum, or a store, whose other end is gone; torch has plain RuntimeErrors."""
    return isinstance(error, RuntimeError) and ("/gloo/" in str(error) or type(error).__name__.startswith("Dist"))


def cores() -> int:
    """Returns the number of cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]  # the jobs of a parallel sweep are told their share
    if re.fullmatch(r"[0-9]{1,9}", told) and int(told) > 0:
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
