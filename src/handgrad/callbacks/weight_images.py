"""Draws the weights as images in TensorBoard."""

import io
import math

import pytorch_lightning as pl
import torch
from PIL import Image

from handgrad.data.base import datamodule_of
from handgrad.loggers.tensorboard import path_logger_of
from handgrad.models.linear_classifier import LinearClassifier
from handgrad.plots.weight_tiles import weight_image


class WeightImages(pl.Callback):
    """Logs the picture ``weights``: a row per l2 value, a tile per output; blue is negative, red positive.

    Drawn after checks 1, 2, 4, 8, ... and at the end. Weights that do not form a square are not drawn.

    Args:
        rows: largest number of rows; a longer path is drawn at evenly spread values.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def on_validation_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        check, rest = divmod(trainer.global_step, datamodule_of(trainer).check_interval)
        if rest == 0 and check & (check - 1) == 0:
            self.draw(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: LinearClassifier) -> None:
        self.draw(trainer, pl_module)

    def draw(self, trainer: pl.Trainer, model: LinearClassifier) -> None:
        paths, _, features = model.weight.shape
        logger = path_logger_of(trainer)
        if logger and math.isqrt(features) ** 2 == features:
            chosen = torch.linspace(0, paths - 1, min(paths, self.rows)).round().long()
            picture = weight_image(model.weight.detach()[chosen].float().cpu())
            height, width, _ = picture.shape
            buffer = io.BytesIO()
            Image.fromarray(picture.numpy()).save(buffer, "PNG", compress_level=1)
            logger.log_image("weights", buffer.getvalue(), (height, width), trainer.global_step)
