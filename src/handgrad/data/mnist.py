"""MNIST and the sets made like it: the splits, and the chosen digits as classes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets import KMNIST, MNIST, FashionMNIST

from handgrad.data.base import LinearDataModule
from handgrad.data.blocks import Samples
from handgrad.data.idx_files import SCALING, IDXFile, scaled
from handgrad.data.labels import chosen_classes
from handgrad.data.mnist_files import PINS, prepare
from handgrad.errors import InputError, nearest

SPLITS = ("full", "course", "report")
DIGITS = 10
ACCEPTED = f"two or more different whole numbers from 0 to {DIGITS - 1}"

Index = slice | np.ndarray


class MNISTDataModule(LinearDataModule):
    """MNIST's images as ``input (N, 784)`` float32 in [-1, 1], and their digits as classes.

    Args:
        root: folder with ``MNIST/raw``, which holds the four files or their archives.
        split: ``full`` (train on 50,000, validate on 10,000 of the same set, test on the official 10,000); or the
            course's: ``course`` (first 20,000, official 10,000, no test) and ``report`` (18,000 and 2,000 drawn from
            these sets, no test).
        digits: the digits to tell apart, in the order of their classes: ``[3, 2]`` makes 3 class 0 and 2 class 1.
        shared: the arguments of ``LinearDataModule``.

    Raises:
        InputError: an argument is not as described, in ``setup`` a batch larger than the training set or a data file
            that cannot be had.
    """

    classes: Sequence[int | str]
    num_features = 28 * 28
    scaling = SCALING

    def __init__(self, *, root: str | Path, split: str, digits: Iterable[int], **shared: Any) -> None:
        super().__init__(**shared)
        if split not in SPLITS:
            raise InputError(f"data.split={split!r}: accepted are {', '.join(SPLITS)}{nearest(split, SPLITS)}")
        self.root, self.split = Path(root), split
        self.classes = self.digits = chosen_classes("data.digits", digits, range(DIGITS), ACCEPTED)

    def about(self) -> dict[str, Any]:
        return super().about() | {"split": self.split}

    def digests(self) -> dict[str, str]:
        return {name: pin.sha256 for name, pin in PINS.items()}

    def read(self) -> dict[str, Samples]:
        """Reads and splits MNIST's two sets; the bytes of the first are freed before the second is read."""
        self._prepare()
        sources = _split(self.split)
        return {name: found for from_train in (True, False) for name, found in self._read(sources, from_train)}

    def _read(self, sources: dict[str, tuple[bool, Index]], from_train: bool) -> Iterator[tuple[str, Samples]]:
        images, labels = self._load(from_train)
        _check_labels(images, labels)
        for name, (source, index) in sources.items():
            if source == from_train:
                yield name, _select(images, labels, index, self.digits)

    def _prepare(self) -> None:
        """Sees to it that the files are there and right."""
        prepare(self.root)

    def _load(self, from_train: bool) -> tuple[Tensor, Tensor]:
        """Returns the images (N, 28, 28) of bytes and the labels (N,) int64 of the training or the test set."""
        mnist = MNIST(self.root, train=from_train, download=False)
        return mnist.data, mnist.targets


class ArchivedDataModule(MNISTDataModule):
    """A set of MNIST's shape, read from the four archives of ``root/<name>/raw`` that torchvision puts there.

    Each is verified by the MD5 that torchvision knows. The classes are called as torchvision calls them.

    Args:
        shared: the arguments of ``MNISTDataModule``; ``digits`` are the numbers of the classes.

    Attributes:
        dataset: torchvision's class.

    Raises:
        InputError: as ``MNISTDataModule``, and in ``setup`` an archive that is missing or damaged.
    """

    dataset: type[MNIST]

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        self.classes = [self.dataset.classes[digit] for digit in self.digits]
        self._files: dict[str, IDXFile] = {}

    @property
    def folder(self) -> Path:
        return self.root / self.dataset.__name__ / "raw"

    def digests(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in self._files.items()}

    def _prepare(self) -> None:
        name = self.dataset.__name__
        get = f"from torchvision.datasets import {name}; {name}({str(self.root)!r}, download=True)"
        for archive, md5 in self.dataset.resources:
            if not (self.folder / archive).is_file():
                raise InputError(
                    f"{self.folder / archive}: missing; the four archives of {name} belong there: "
                    f'python -c "{get}", or by hand from {self.dataset.mirrors[0]}'
                )
            self._files[archive] = IDXFile(self.folder / archive, md5)

    def _load(self, from_train: bool) -> tuple[Tensor, Tensor]:
        of = "train" if from_train else "t10k"
        images, labels = (self._files[f"{of}-{what}-ubyte.gz"].read() for what in ("images-idx3", "labels-idx1"))
        return images, labels.long()


class FashionMNISTDataModule(ArchivedDataModule):
    """Fashion-MNIST: clothes, shoes and bags. Source: https://github.com/zalandoresearch/fashion-mnist."""

    dataset = FashionMNIST


class KMNISTDataModule(ArchivedDataModule):
    """Kuzushiji-MNIST: ten Japanese characters in cursive. Source: https://github.com/rois-codh/kmnist."""

    dataset = KMNIST


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


def _select(images: Tensor, labels: Tensor, index: Index, digits: Sequence[int]) -> Samples:
    """Splits first, then keeps the digits: ``(N, 28, 28)`` bytes to ``(M, 784)`` floats and ``(M,)`` classes."""
    class_of = torch.full((DIGITS,), -1)
    class_of[list(digits)] = torch.arange(len(digits))
    target = class_of[labels[index]]
    kept = target >= 0
    return scaled(images[index][kept]), target[kept]


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if len(images) != len(labels):
        raise InputError(f"MNIST: {len(images)} images and {len(labels)} labels; accepted are equal numbers")
    low, high = labels.aminmax()
    if low < 0 or high >= DIGITS:
        raise InputError(f"MNIST: labels from {low} to {high}; accepted are 0 to {DIGITS - 1}")
