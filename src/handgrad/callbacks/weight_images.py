"""Draws the weights as images in TensorBoard."""

import io
import math

import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor

from handgrad.models.linear_classifier import LinearClassifier

NEGATIVE, ZERO, POSITIVE = (torch.tensor(rgb) / 255 for rgb in ((33, 102, 172), (247, 247, 247), (178, 24, 43)))


class WeightImages(pl.Callback):
    """Logs the picture ``weights``: a row per l2 value, a tile per output; blue is negative, red positive.

    Drawn after checks 1, 2, 4, 8, ... and at the end. Weights that do not form a square are not drawn.

    Args:
        rows: largest number of rows; a longer path is drawn at evenly spread values.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        check, rest = divmod(trainer.global_step, trainer.datamodule.check_interval)
        if rest == 0 and check & (check - 1) == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: pl.Trainer, model: LinearClassifier) -> None:
        paths, _, features = model.weight.shape
        if trainer.logger and math.isqrt(features) ** 2 == features:
            chosen = torch.linspace(0, paths - 1, min(paths, self.rows)).round().long()
            picture = weight_image(model.weight.detach()[chosen].float().cpu())
            buffer = io.BytesIO()
            Image.fromarray(picture.numpy()).save(buffer, "PNG", compress_level=1)
            trainer.logger.log_image("weights", buffer.getvalue(), picture.shape[:2], trainer.global_step)


def weight_image(weight: Tensor, scale: int = 2, gap: int = 2) -> Tensor:
    """Returns ``weight (L, K, S*S)`` as an RGB picture (uint8): rows are classifiers, tiles outputs.

    One diverging scale serves a whole row: white is zero, full colour the row's largest absolute weight.
    """
    side = math.isqrt(weight.shape[2])
    value = (weight / weight.abs().amax((1, 2), keepdim=True).clamp_min(1e-30))[..., None]
    ends = torch.where(value < 0, NEGATIVE, POSITIVE)
    colours = torch.lerp(ZERO.expand_as(ends), ends, value.abs().expand_as(ends))
    pixels = (colours * 255).round().to(torch.uint8).unflatten(2, (side, side))
    tiles = pixels.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    tiles = torch.nn.functional.pad(tiles, (0, 0, gap, gap, gap, gap), value=255)
    return tiles.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)
