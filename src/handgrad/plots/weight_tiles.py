"""Weights as a picture, without matplotlib: a row per classifier, a tile per output."""

import math

import torch
from torch import Tensor

NEGATIVE, ZERO, POSITIVE = (torch.tensor(rgb) / 255 for rgb in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))


def weight_image(weight: Tensor, scale: int = 2, gap: int = 2, limit: float | None = None) -> Tensor:
    """Returns ``weight (L, K, S*S)`` as an RGB picture (uint8): rows are classifiers, tiles outputs.

    One diverging scale serves a whole row: white is zero, full colour the row's largest absolute weight, or ``limit``.
    """
    side = math.isqrt(weight.shape[2])
    largest = weight.abs().amax((1, 2), keepdim=True).clamp_min(1e-30) if limit is None else limit
    value = (weight / largest)[..., None]
    ends = torch.where(value < 0, NEGATIVE, POSITIVE)
    colours = torch.lerp(ZERO.expand_as(ends), ends, value.abs().expand_as(ends))
    pixels = (colours * 255).round().to(torch.uint8).unflatten(2, (side, side))
    tiles = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tiles = torch.nn.functional.pad(tiles, (0, 0, gap, gap, gap, gap), value=255)
    return tiles.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
