"""What each sample counts in a weighted mean, and the precision in which means and sums are evaluated."""

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)  # kinds of device


def sample_shares(sample_weight: Tensor) -> Tensor:
    """Returns ``s[n] / sum_n s[n]``, (N,), at least in float32: a sum in float16 overflows from 65,520 on."""
    weights = sample_weight.to(at_least_float32(sample_weight))
    return weights / weights.sum()


def widest(device: torch.device) -> torch.dtype:
    """Returns float64, which sums are taken in; float32 where a device has nothing wider."""
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
