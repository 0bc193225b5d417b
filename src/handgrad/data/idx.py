"""Images of one's own, from a folder of IDX files that are called as MNIST's are."""

import re
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from handgrad.data.base import LinearDataModule
from handgrad.data.blocks import Samples
from handgrad.data.idx_files import SCALING, IDXFile, md5_of, md5_sums, scaled
from handgrad.data.labels import chosen_classes, classes_of, encoded, held_out, listed
from handgrad.errors import InputError

NAME = re.compile(r"(?:.+[-_.])?(?P<set>train|t10k|test)[-_.](?P<what>images|labels)[-_.]idx\d-ubyte(?:\.gz)?")
LIKE = "train-images-idx3-ubyte.gz and train-labels-idx1-ubyte.gz, for a test set t10k-… or test-…"


class IDXDataModule(LinearDataModule):
    """Images as ``input (N, D)`` float32 in [-1, 1], and their labels as classes.

    The files' names end like ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, of a test set, where there is
    one, with ``t10k`` or ``test`` for ``train``; packed ones in ``.gz``, which are read where both are there. Headers
    and labels are read at once, images in ``setup``.

    Args:
        folder: that has these files.
        labels: those to tell apart, in the order of their classes; None: all of the training set, ascending.
        holdout: share of each class of the training set that is held out for validation, > 0 and < 1.
        md5: a file as ``md5sum`` writes it, by which they are verified; None: nothing vouches for them.
        shared: the arguments of ``LinearDataModule``.

    Raises:
        InputError: anything is not as described; in ``setup`` also a damaged file, or one that changes meanwhile.
    """

    classes: list[int]
    scaling = SCALING

    def __init__(
        self,
        *,
        folder: str | Path | None,
        labels: Iterable[int] | None = None,
        holdout: float,
        md5: str | Path | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        if folder is None:
            raise InputError("data.folder=null: accepted is a folder of IDX files, like data.folder=data/KMNIST/raw")
        if isinstance(holdout, bool) or not isinstance(holdout, int | float) or not 0 < holdout < 1:
            raise InputError(f"data.holdout={holdout!r}: accepted is a number > 0 and < 1")
        self.holdout, self.files = holdout, sets_of(Path(folder), md5)
        self.num_features = prod(self.files["train"].images.shape[1:])
        found = {name: pair.read_labels(self.num_features) for name, pair in self.files.items()}
        known = [int(label) for label in classes_of(found["train"], str(self.files["train"].labels))]
        self.classes = known
        if labels is not None:
            accepted = f"two or more different ones of {listed(known)}"
            self.classes = chosen_classes("data.labels", labels, known, accepted)
        self._index = {
            name: np.arange(len(of)) if labels is None else np.flatnonzero(np.isin(of, self.classes))
            for name, of in found.items()
        }
        self._targets = {
            name: encoded(of[self._index[name]], self.classes, str(self.files[name].labels))
            for name, of in found.items()
        }

    def about(self) -> dict[str, Any]:
        files = [file for pair in self.files.values() for file in pair]
        told = {f"file {file}": f"{file.size} bytes, SHA-256 {file.sha256}" for file in files}
        return super().about() | {"holdout": self.holdout} | told

    def digests(self) -> dict[str, str]:
        return {str(file): file.sha256 for file in self.files["train"]}

    def read(self) -> dict[str, Samples]:
        """Reads the images, and holds a part of the training set out."""
        sets: dict[str, Samples] = {}
        for name, (images, _) in self.files.items():
            pixels, target, kept = images.read(), self._targets[name], torch.from_numpy(self._index[name])
            parts = {name: torch.arange(len(target))}
            if name == "train":
                parts["train"], parts["val"] = held_out(target, self.holdout, self.seed)
            sets |= {part: (scaled(pixels[kept[index]]), target[index]) for part, index in parts.items()}
        return sets


class Pair(NamedTuple):
    """The two files of a set."""

    images: IDXFile
    labels: IDXFile

    def read_labels(self, pixels: int) -> np.ndarray:
        """Returns the labels, (N,) int64; raises an InputError unless each has an image of so many pixels."""
        images, labels = self
        if labels.shape != images.shape[:1]:
            raise InputError(f"{labels}: shape {labels.shape}; accepted is {images.shape[:1]}, as {images} has images")
        if prod(images.shape[1:]) != pixels:
            raise InputError(
                f"{images}: {prod(images.shape[1:])} pixels an image; accepted are {pixels}, as in training"
            )
        return labels.read().numpy().astype(np.int64)


def sets_of(folder: Path, md5: str | Path | None) -> dict[str, Pair]:
    """Returns the files of ``train`` and, where there are some, of ``test``.

    Raises:
        InputError: a file is missing, damaged, or one of several that could be meant.
    """
    found = paths_in(folder)
    sums = None if md5 is None else md5_sums(md5)
    sets = {}
    for name in ("train", "test"):
        missing = [what for what in Pair._fields if (name, what) not in found]
        if missing and (name == "train" or len(missing) == 1):
            raise InputError(f"{folder}: no {missing[0]} of a {name} set; accepted are files called like {LIKE}")
        if not missing:
            paths = [found[name, what] for what in Pair._fields]
            sets[name] = Pair(*(IDXFile(path, md5_of(path.name, sums, md5)) for path in paths))
    return sets


def paths_in(folder: Path) -> dict[tuple[str, str], Path]:
    """Returns the files of a folder by set, ``train`` or ``test``, and by what they hold."""
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise InputError(f"data.folder={folder}: accepted is a folder of IDX files ({error.strerror})") from error
    paths: dict[tuple[str, str], Path] = {}
    for name in names:  # what is packed comes after what was unpacked from it
        if found := NAME.fullmatch(name):
            place = "train" if found["set"] == "train" else "test", found["what"]
            if place in paths and f"{paths[place].name}.gz" != name:
                raise InputError(f"{folder}: {paths[place].name} and {name}; accepted is one file of {found['what']}")
            paths[place] = folder / name
    return paths
