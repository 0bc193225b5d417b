"""MNIST as tensors in memory: the splits, the chosen digits as classes, and the loaders."""

from collections.abc import Iterable
from numbers import Integral
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchvision.datasets import MNIST

from handgrad.data.blocks import BlockLoader, WholeSets
from handgrad.data.mnist_files import prepare
from handgrad.errors import InputError, nearest

SPLITS = ("full", "course", "report")
DIGITS = 10

Part = tuple[Tensor, Tensor]
Index = slice | np.ndarray


class MNISTDataModule(pl.LightningDataModule):
    """Linear classification data ``input (N, 784)`` float32 in [-1, 1] and ``target (N,)`` int64 in 0..K-1.

    Args:
        root: folder with ``MNIST/raw``, which holds the four files or their archives.
        split: ``full`` (train on 50,000, validate on 10,000 of the same set, test on the official 10,000); or the
            course's: ``course`` (first 20,000, official 10,000, no test) and ``report`` (18,000 and 2,000 drawn from
            these sets, no test).
        digits: the digits to tell apart, in the order of their classes: ``[3, 2]`` makes 3 class 0 and 2 class 1.
        shuffle: a new order of the training samples in every epoch.
        batch_size: samples per update; the last, partial batch of an epoch is dropped.
        seed: of the shuffling, at least 0.
        epochs: passes over the training set.
        train_size: how many samples of the training set are used, from its start; None: all.

    Attributes:
        classes: ``digits`` as a list.
        num_features, num_classes: 784 and K.
        train, val, test: ``(input, target)`` after ``setup``; None before it, and for a split without test set.
        batches: updates per epoch, after ``setup`` as the next two are.
        check_interval: updates between two validations, a fifth of an epoch but at least one.
        total_updates: updates in all epochs.

    Raises:
        InputError: an argument is not as described, in ``setup`` a batch larger than the training set or a data file
            that cannot be had.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        split: str,
        digits: Iterable[int],
        shuffle: bool,
        batch_size: int,
        seed: int,
        epochs: int,
        train_size: int | None = None,
    ) -> None:
        super().__init__()
        if split not in SPLITS:
            raise InputError(f"split={split!r}: accepted are {', '.join(SPLITS)}{nearest(split, SPLITS)}")
        if not isinstance(shuffle, bool):  # a word such as 'no' would count as true
            raise InputError(f"shuffle={shuffle!r}: accepted are true and false")
        self.root, self.split, self.shuffle = Path(root), split, shuffle
        self.classes = _checked_digits(digits)
        self.batch_size = _whole_number("batch_size", batch_size, least=1)
        self.seed = _whole_number("seed", seed, least=0)
        self.epochs = _whole_number("epochs", epochs, least=1)
        self.train_size = None if train_size is None else _whole_number("train_size", train_size, least=1)
        self.num_features, self.num_classes = 28 * 28, len(self.classes)
        self.train = self.val = self.test = None
        self.batches = self.check_interval = self.total_updates = None

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits the data, the same for every ``stage``; a second call does nothing."""
        if self.batches is not None:
            return
        prepare(self.root)
        parts = _split(self.split)
        self._read(parts, from_train=True)
        self._read(parts, from_train=False)
        samples = len(self.train[1])
        if self.train_size is not None:
            if self.train_size > samples:
                raise InputError(f"train_size={self.train_size}: accepted are 1 to {samples}, or null for all")
            self.train = tuple(tensor[: self.train_size].clone() for tensor in self.train)
            samples = self.train_size
        if self.batch_size > samples:
            raise InputError(f"batch_size={self.batch_size}: accepted are 1 to {samples}, the size of the training set")
        self.batches = samples // self.batch_size
        self.check_interval = max(1, self.batches // 5)
        self.total_updates = self.epochs * self.batches

    def _read(self, parts: dict[str, tuple[bool, Index]], from_train: bool) -> None:
        """Fills those parts that come from one of MNIST's two sets; its bytes are freed before the next is read."""
        mnist = MNIST(self.root, train=from_train, download=False)
        _check_labels(mnist.data, mnist.targets)
        for name, (source, index) in parts.items():
            if source == from_train:
                setattr(self, name, _select(mnist.data, mnist.targets, index, self.classes))

    def _on_device(self, name: str) -> Part:
        """Returns a part, moved to the trainer's device for good: there are no transfers while training."""
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            setattr(self, name, tuple(tensor.to(device) for tensor in getattr(self, name)))
        return getattr(self, name)

    def train_dataloader(self) -> BlockLoader:
        """Returns the loader of the blocks of mini-batches between two validations."""
        trainer = self.trainer
        return BlockLoader(
            *self._on_device("train"),
            batch_size=self.batch_size,
            epochs=self.epochs,
            check_interval=self.check_interval,
            shuffle=self.shuffle,
            seed=self.seed,
            step=lambda: trainer.global_step if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def val_dataloader(self) -> WholeSets:
        """Returns the validation set and the training set, ``val`` and ``train``, as one batch."""
        return WholeSets({name: self._on_device(name) for name in ("val", "train")})

    def test_dataloader(self) -> WholeSets:
        """Returns ``train``, ``val`` and, where there is one, ``test``, as one batch."""
        names = ("train", "val") if self.test is None else ("train", "val", "test")
        return WholeSets({name: self._on_device(name) for name in names})


def _split(name: str) -> dict[str, tuple[bool, Index]]:
    """Returns for each part whether it comes from MNIST's training set, and which samples of that set it takes."""
    if name == "full":
        return {"train": (True, slice(0, 50_000)), "val": (True, slice(50_000, None)), "test": (False, slice(None))}
    if name == "course":
        return {"train": (True, slice(0, 20_000)), "val": (False, slice(None))}
    legacy = np.random.RandomState(0)  # draws what np.random.seed(0) and np.random.choice drew for the report
    return {
        "train": (True, legacy.choice(60_000, 18_000, replace=False)),
        "val": (False, legacy.choice(10_000, 2_000, replace=False)),
    }


def _select(images: Tensor, labels: Tensor, index: Index, digits: list[int]) -> Part:
    """Splits first, then keeps the digits: ``(N, 28, 28)`` bytes to ``(M, 784)`` floats and ``(M,)`` classes."""
    class_of = torch.full((DIGITS,), -1)
    class_of[digits] = torch.arange(len(digits))
    target = class_of[labels[index]]
    kept = target >= 0
    input = images[index][kept].flatten(1).to(torch.float32)
    return input.div_(127.5).sub_(1), target[kept]


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if len(images) != len(labels):
        raise InputError(f"MNIST: {len(images)} images and {len(labels)} labels; accepted are equal numbers")
    low, high = labels.aminmax()
    if low < 0 or high >= DIGITS:
        raise InputError(f"MNIST: labels from {low} to {high}; accepted are 0 to {DIGITS - 1}")


def _checked_digits(digits: Iterable[int]) -> list[int]:
    found = list(digits) if isinstance(digits, Iterable) else []
    if not all(_is_whole(digit) and 0 <= digit < DIGITS for digit in found) or not 2 <= len(set(found)) == len(found):
        raise InputError(f"digits={digits!r}: accepted are two or more different whole numbers from 0 to {DIGITS - 1}")
    return [int(digit) for digit in found]


def _whole_number(name: str, value: int, least: int) -> int:
    if not _is_whole(value) or value < least:
        raise InputError(f"{name}={value!r}: accepted is a whole number from {least}")
    return int(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
