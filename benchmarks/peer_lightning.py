"""The peer that most people would write: MNIST through a DataLoader, ``nn.Linear`` in a Lightning module."""

import time
from pathlib import Path

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from benchmarks.ours import screen
from benchmarks.peers import End, Problem, linear


class UsualModule(pl.LightningModule):
    """``nn.Linear``, ``F.cross_entropy``, ``self.log``."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.linear, self.lr = linear(problem), problem.lr

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        logits = self(x)
        loss = F.cross_entropy(logits, y)
        self.log("loss/train", loss, prog_bar=True)
        self.log("accuracy/train", (logits.argmax(1) == y).float().mean())
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        logits = self(x)
        self.log("loss/val", F.cross_entropy(logits, y), prog_bar=True)
        self.log("accuracy/val", (logits.argmax(1) == y).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Stopwatch(pl.Callback):
    """Times from the first batch to the end of training, which spares this peer the start of ``fit``."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: UsualModule) -> None:
        self.start = time.perf_counter()

    def on_train_end(self, trainer: pl.Trainer, pl_module: UsualModule) -> None:
        self.seconds = time.perf_counter() - self.start


def fit(problem: Problem, root: Path, folder: Path, workers: int = 0) -> tuple[End, float]:
    """Trains one epoch, validates once after it; returns what it ends at, and its seconds."""
    problem = problem.first(1)
    transform = Compose([ToTensor(), Normalize(0.5, 0.5)])
    train = Subset(MNIST(root, train=True, transform=transform), range(len(problem.train[1])))
    val = MNIST(root, train=False, transform=transform)
    model, watch = UsualModule(problem), Stopwatch()
    batch_sampler = [index.tolist() for index in problem.batches]  # the order of all the others
    with screen():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            callbacks=[EarlyStopping("loss/val", patience=10), ModelCheckpoint(monitor="loss/val"), watch],
            logger=TensorBoardLogger(folder),
            default_root_dir=folder,
            num_sanity_val_steps=0,
        )
        trainer.fit(
            model,
            DataLoader(train, batch_sampler=batch_sampler, num_workers=workers),
            DataLoader(val, batch_size=len(problem.batches[0]), num_workers=workers),
        )
    metrics = trainer.callback_metrics
    return (metrics["loss/val"].item(), metrics["accuracy/val"].item()), watch.seconds
