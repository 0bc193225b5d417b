"""What every data source shares: the sets as tensors in memory, or rows on disk, and the loaders over them."""

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from handgrad.data.blocks import BlockLoader, Samples, WholeSets
from handgrad.data.labels import is_whole
from handgrad.data.rows import Joined, Rows
from handgrad.errors import InputError
from handgrad.functions.samples import widest


class LinearDataModule(pl.LightningDataModule):
    """Linear classification data ``input (N, D)`` and ``target (N,)`` int64 in 0..C-1, or (N, C) of 0 and 1.

    A subclass says in ``read`` where the sets come from, and before that names ``classes`` and ``num_features``.

    Args:
        shuffle: a new order of the training samples in every epoch.
        batch_size: samples per update; the last, partial batch of an epoch is dropped.
        seed: of the shuffling, at least 0.
        epochs: passes over the training set.
        train_size: how many samples of the training set are used, from its start; None: all.

    Attributes:
        classes: the classes' names, or the labels', by index: numbers or text.
        multilabel: whether a sample may have several labels, or none: then ``target`` is (N, C), 0 or 1.
        num_features: D.
        feature_names: the features' names, by index; None: they have none.
        scaling: how features come from what is stored, in words; None: they are what is stored.
        unit_rows: whether each row of features was divided by its length.
        train, val, test: ``(input, target)`` after ``setup``; None before it, and where there is no such set.
        normalization: shift and scale, each ``(D,)`` float64, after ``setup``: the sets' features are
            (x - shift) / scale; None: they are not normalized by columns.
        sample_weight: ``(N,)`` float64 of the training set, after ``setup``; None: all weigh alike.
        val_weight: ``(N,)`` float64, what the samples of the validation set would weigh among those of the training
            set; None: each 1, or, where those have weights, nobody knows.
        fold: ``(N,)`` int64, which fold of a cross-validation holds a sample of the training set out: then there is no
            validation set; None: there are no folds.
        shots, draws: how many samples of each class train in few-shot draws, and how often each.
        bootstrap: draws of the test set; None: there are none.
        batches: updates per epoch, after ``setup`` as the next two are.
        check_interval: updates between two validations, a fifth of an epoch but at least one.
        total_updates: updates in all epochs.

    Raises:
        InputError: an argument is not as described, in ``setup`` a batch larger than the training set or data that
            cannot be had.
    """

    classes: Sequence[int | str]
    multilabel: bool = False
    num_features: int
    feature_names: Sequence[str] | None = None
    scaling: str | None = None
    unit_rows = False
    fold: Tensor | None = None
    shots: Sequence[int] = ()
    draws: int = 0
    bootstrap: int | None = None
    normalize: str = "none"

    def __init__(
        self, *, shuffle: bool, batch_size: int, seed: int, epochs: int, train_size: int | None = None
    ) -> None:
        super().__init__()
        if not isinstance(shuffle, bool):  # a word such as 'no' would count as true
            raise InputError(f"data.shuffle={shuffle!r}: accepted are true and false")
        self.shuffle = shuffle
        self.batch_size = whole_number("batch_size", batch_size, least=1)
        self.seed = whole_number("seed", seed, least=0)
        self.epochs = whole_number("epochs", epochs, least=1)
        self.train_size = None if train_size is None else whole_number("data.train_size", train_size, least=1)
        self.train: Samples | None = None
        self.val: Samples | None = None
        self.test: Samples | None = None
        self.sample_weight: Tensor | None = None
        self.val_weight: Tensor | None = None
        self.normalization: tuple[Tensor, Tensor] | None = None
        self._sent: dict[str, Samples] = {}  # what is on disk, as the trainer's device has it
        self.batches = self.check_interval = self.total_updates = 0
        self.entries: int | None = None

    @property
    def one_at_a_time(self) -> bool:
        """Whether a block is the whole training set, for one entry of a path."""
        return self.entries is not None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def read(self) -> dict[str, Samples]:
        """Returns the sets ``train`` and ``val``, and ``test`` where there is one; may set ``sample_weight``."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Returns what a saved model must say of the data it was trained on."""
        names = ("classes", "num_features", "feature_names", "scaling")
        return {name: getattr(self, name) for name in names}

    def digests(self) -> dict[str, str]:
        """Returns the SHA-256 of each file that the training set is from, by its name."""
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Reads the sets, the same for every ``stage``; a second call does nothing."""
        if self.batches:
            return
        for name, found in self.read().items():
            setattr(self, name, found)
        assert self.train is not None, "read() has no training set"
        self._check_targets()
        samples = len(self.train[1])
        if self.train_size is not None:
            if self.train_size > samples:
                raise InputError(f"data.train_size={self.train_size}: accepted are 1 to {samples}, or null for all")
            if self.train_size < samples:
                self._keep_first(self.train_size)
            samples = self.train_size
        self._count(samples)

    def _check_targets(self) -> None:
        """Raises an InputError for a target that is no class: a device would end the process, and not say of which."""
        largest = 1 if self.multilabel else self.num_classes - 1
        for name in ("train", "val", "test"):
            if (samples := getattr(self, name)) is not None and len(samples[1]):
                for value in map(int, samples[1].aminmax()):
                    if not 0 <= value <= largest:
                        raise InputError(f"{name}: target {value}; accepted are whole numbers from 0 to {largest}")

    def serve_whole(self, entries: int) -> None:
        """Makes an epoch of a block for each entry of a path: the whole training set in its order, as a mini-batch."""
        self.entries, self.shuffle, self.epochs = entries, False, 1
        if self.train is not None:
            self._count(len(self.train[1]))

    def _count(self, samples: int) -> None:
        """Says how many updates there are; raises an InputError for a batch larger than the training set."""
        if self.entries:
            self.batch_size = samples
        if self.batch_size > samples:
            raise InputError(f"batch_size={self.batch_size}: accepted are 1 to {samples}, the size of the training set")
        self.batches = self.entries or samples // self.batch_size
        self.check_interval = 1 if self.entries else max(1, self.batches // 5)
        self.total_updates = self.epochs * self.batches

    def _keep_first(self, samples: int) -> None:
        """Keeps the first samples of the training set, and lets the others' memory go."""
        assert self.train is not None
        input, target = self.train
        first = input.first(samples) if isinstance(input, Rows) else input[:samples].clone()
        self.train = first, target[:samples].clone()
        if self.sample_weight is not None:
            self.sample_weight = self.sample_weight[:samples].clone()

    def train_and_val(self) -> tuple[Joined, Tensor, Tensor | None]:
        """Returns both sets as one, ``input (N, D)``, ``target (N,)`` and what the samples weigh; no row is copied.

        Both are normalized as they are, by what the training set alone is like.

        Raises:
            InputError: the training set's samples have weights and those of the validation set have none.
        """
        assert self.train is not None
        assert self.val is not None
        self.check_weights_of_val()
        (first, target), (second, of_val) = (
            (input.to("cpu"), target.cpu()) for input, target in (self.train, self.val)
        )
        weight = None
        if self.sample_weight is not None or self.val_weight is not None:
            known = (self.sample_weight, target), (self.val_weight, of_val)
            ones = [torch.ones(len(of), dtype=torch.float64) if given is None else given for given, of in known]
            weight = torch.cat(ones)
        return Joined(first, second), torch.cat((target, of_val)), weight

    def check_weights_of_val(self) -> None:
        """Raises an InputError unless the validation set could be trained on too."""
        if self.sample_weight is not None and self.val_weight is None:
            raise InputError("select.refit=true: the validation set has no sample weights; accepted is data.val=null")

    def weights_of_part(self, index: Tensor) -> Tensor | None:
        """Returns what the samples ``index (n,)`` of the training set weigh where they alone train, (n,)."""
        return None if self.sample_weight is None else self.sample_weight[index]

    def _on_device(self, name: str) -> Samples:
        """Returns a set, moved to the trainer's device for good: there are no transfers while training.

        What is on disk stays so for whoever reads it on the CPU; a device keeps it where half of its free memory is
        enough, else it is read when it is asked for.
        """
        input, target = getattr(self, name)
        if self.trainer is None:
            return input, target
        device = self.trainer.strategy.root_device
        if isinstance(input, Rows):
            if name not in self._sent:
                self._sent[name] = input.sent(device), target.to(device)
            return self._sent[name]
        input, target = input.to(device), target.to(device)
        setattr(self, name, (input, target))
        return input, target

    def _weights_of_training(self) -> Tensor | None:
        """Returns the sample weights, of mean 1 over the training set."""
        weight = self.sample_weight
        if weight is None:
            return None
        device = self._on_device("train")[1].device
        return (weight / weight.mean()).to(widest(device)).to(device)

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
            sample_weight=self._weights_of_training(),
            entries=self.batches if self.one_at_a_time else None,
            step=lambda: trainer.global_step if trainer else 0,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )

    def val_dataloader(self) -> WholeSets:
        """Returns the validation set and the training set, ``val`` and ``train``, as one batch."""
        return self._whole_sets("val", "train")

    def test_dataloader(self) -> WholeSets:
        """Returns ``train``, ``val`` and, where there is one, ``test``, as one batch."""
        return self._whole_sets("train", "val", "test")

    def _whole_sets(self, *names: str) -> WholeSets:
        return WholeSets({name: self._on_device(name) for name in names if getattr(self, name) is not None})


def datamodule_of(trainer: Any) -> LinearDataModule:
    """Returns the data that a Trainer was given, which Lightning's own types do not know of."""
    return trainer.datamodule


def whole_number(name: str, value: object, least: int) -> int:
    """Returns ``value`` as an int; raises an InputError that names it unless it is a whole number from ``least``."""
    if not is_whole(value) or value < least:
        raise InputError(f"{name}={value!r}: accepted is a whole number from {least}")
    return int(value)
