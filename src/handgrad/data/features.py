"""Features of one's own, from files: what a linear probe is trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from handgrad.data.array_files import File
from handgrad.data.base import LinearDataModule, whole_number
from handgrad.data.blocks import Samples
from handgrad.data.feature_files import Names
from handgrad.data.labels import check_classes, class_weights, classes_of, encoded, held_out, listed, weights_of
from handgrad.data.multilabel import check_labels, indicated, label_names, rarest_label
from handgrad.data.normalization import KINDS, Transform, by_columns, shift_and_scale, statistics, to_length_one
from handgrad.data.rows import Rows
from handgrad.data.shards import Files, Shards, check_features, check_finite, is_file
from handgrad.data.splits import fold_index
from handgrad.errors import InputError, nearest

FEWEST_DRAWS = 20  # of a test set, for a 95 % interval
IN_MEMORY = 2**29  # bytes: a set that is larger, as float32 or float64, stays on disk


class FeatureDataModule(LinearDataModule):
    """Features from files as ``input (N, D)``, of which large ones stay on disk, and their labels as classes.

    Headers and labels are read at once, features in ``setup``. Accepted are .npy, .npz, .safetensors, .pt, .parquet and
    .csv files, each as one file, a list of shards, or a pattern that they match; labels may stand in .txt files too.

    Args:
        train, val, test: the files; ``val=None``: a part of ``train`` is held out; ``test=None``: there is none.
        train_labels, val_labels, test_labels: files of labels; None: they stand beside the features.
        x: name of the array of features, or of the columns; None: ``x`` or the only matrix, of a table all columns but
            the labels and the weights.
        y: name of the labels; None: ``y``, or the only array that can be meant; of several labels also the columns of a
            table, one of each.
        multilabel: whether a sample may have several labels, or none: a matrix (N, K) of 0 and 1, or their names.
        label_names: what the labels are called, in the order of the columns, or of the names that are to be found;
            None: 0 to K - 1, as the columns of ``y``, or all names there are.
        label_separator: what stands between the names of a sample's labels in text.
        holdout: share of each class that is held out, > 0 and < 1; with several labels, of the samples whose rarest
            label is the same.
        normalize: ``none``, ``center``, ``standardize``, or ``l2``; by the training set alone, after the hold-out.
        class_weight: None, ``balanced``, or a table of weights by class.
        sample_weight: name of an array or column in the files of ``train``, or a file; None: all weigh alike.
        folds: of a cross-validation, from 2: then nothing is held out, ``val`` is None, and ``fold`` is known.
        groups: name of an array or column in the files of ``train``, or a file: samples of a group are in one fold.
        shots: how many samples of each class train in few-shot draws; None: there are none.
        draws: so many for each number of ``shots``.
        bootstrap: draws of the test set, for confidence intervals; None: there are none.
        shared: the arguments of ``LinearDataModule``.

    Attributes:
        normalization: shift and scale, each (D,) float64, after ``setup`` with ``center`` or ``standardize``: features
            are (x - shift) / scale.

    Raises:
        InputError: anything is not as described; in ``setup`` also NaN or infinity among the features, a damaged file,
            or one that changes meanwhile.
    """

    classes: list[int] | list[str]

    def __init__(
        self,
        *,
        train: Files | None = None,
        val: Files | None = None,
        test: Files | None = None,
        train_labels: Files | None = None,
        val_labels: Files | None = None,
        test_labels: Files | None = None,
        x: str | Sequence[str] | None = None,
        y: str | Sequence[str] | None = None,
        multilabel: bool = False,
        label_names: Sequence[str] | None = None,
        label_separator: str = ";",
        holdout: float,
        normalize: str,
        class_weight: str | Mapping[Any, float] | None = None,
        sample_weight: str | None = None,
        folds: int | None = None,
        groups: str | None = None,
        shots: Sequence[int] | None = None,
        draws: int = 10,
        bootstrap: int | None = None,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.folds, self.groups_from = folds, groups
        self.shots, self.draws, self.bootstrap = list(shots or ()), draws, bootstrap
        self._weight_of_val: Tensor | None = None
        self.holdout, self.normalize = holdout, normalize
        self.scaling = KINDS.get(normalize)
        self.unit_rows = normalize == "l2"
        self.class_weight = dict(class_weight) if isinstance(class_weight, Mapping) else class_weight
        self.sample_weight_from = sample_weight
        self.multilabel, self.label_names = multilabel, label_names and list(label_names)
        self.label_separator = label_separator
        if y is not None and not isinstance(y, str):
            y = self._columns_of_labels(y)
        self._check_arguments(train)
        self._check_resampling(val, test)
        weight = None if sample_weight is None or is_file(sample_weight) else sample_weight
        group = None if groups is None or is_file(groups) else groups
        names = Names(x, y, weight, group, several=label_separator if multilabel else None)
        given = {"train": (train, train_labels), "val": (val, val_labels), "test": (test, test_labels)}
        for name, (files, labels) in given.items():
            if files is None and labels is not None:
                raise InputError(f"data.{name}_labels={labels}: accepted with data.{name}=null is null")
        self.sets = {
            name: Shards(f"data.{name}", files, labels, replace(names, labels=f"{name}_labels"))
            for name, (files, labels) in given.items()
            if files is not None
        }
        self._take_features()
        self._take_labels()
        self._take_weights()
        self._take_folds()

    def _check_resampling(self, val: Files | None, test: Files | None) -> None:
        for name, least in (("folds", 2), ("draws", 1), ("bootstrap", FEWEST_DRAWS)):
            if (value := getattr(self, name)) is not None:
                whole_number(f"data.{name}", value, least)
        for shots in self.shots:
            whole_number("data.shots", shots, least=1)
        if len(set(self.shots)) < len(self.shots):
            raise InputError(f"data.shots={self.shots}: accepted are different numbers")
        if self.bootstrap is not None and test is None:
            raise InputError(f"data.bootstrap={self.bootstrap}: accepted with data.test=null is null")
        if self.folds is not None and val is not None:
            raise InputError(
                f"data.folds={self.folds}: accepted with data.val={val} is null; each fold is held out in turn"
            )
        if self.groups_from is not None and self.folds is None:
            raise InputError(f"data.groups={self.groups_from}: accepted with data.folds=null is null")
        if self.shots and (self.folds is not None or self.multilabel):
            other = "task=multilabel" if self.multilabel else f"data.folds={self.folds}"
            raise InputError(f"data.shots={self.shots}: accepted with {other} is null")

    def _check_arguments(self, train: Files | None) -> None:
        if train is None:
            raise InputError("data.train=null: accepted is a file of features, like data.train=train.npz")
        if self.normalize not in KINDS:
            hint = nearest(self.normalize, KINDS)
            raise InputError(f"data.normalize={self.normalize!r}: accepted are {', '.join(KINDS)}{hint}")
        if isinstance(self.holdout, bool) or not isinstance(self.holdout, int | float) or not 0 < self.holdout < 1:
            raise InputError(f"data.holdout={self.holdout!r}: accepted is a number > 0 and < 1")
        if self.multilabel and self.class_weight is not None:
            raise InputError(f"data.class_weight={self.class_weight!r}: accepted with task=multilabel is null")
        if self.label_names is not None and not self.multilabel:
            raise InputError(f"data.label_names={self.label_names}: accepted with one label per sample is null")

    def _columns_of_labels(self, y: Sequence[str]) -> list[str]:
        """Returns the columns that are labels, which are called so."""
        if not self.multilabel:
            raise InputError(
                f"data.y={list(y)}: accepted with one label per sample is one name; task=multilabel has several"
            )
        self.label_names = self.label_names or list(y)
        return list(y)

    def _take_features(self) -> None:
        first = self.sets["train"].shards[0]
        for shards in self.sets.values():
            check_features(shards.shards[0], first)
        self.num_features, self.feature_names = first.shape[1], first.columns

    def _take_labels(self) -> None:
        """Names the classes, and says which rows and which targets each set has."""
        labels, first = self.sets["train"].labels, str(self.sets["train"].files[0])
        self.classes = label_names(labels, self.label_names, first) if self.multilabel else classes_of(labels, first)
        encode = indicated if self.multilabel else encoded
        targets = {
            name: encode(shards.labels, self.classes, str(shards.files[0])) for name, shards in self.sets.items()
        }
        index: dict[str, Tensor | None] = dict.fromkeys(targets)
        if "val" not in targets and self.folds is None:
            groups = rarest_label(targets["train"]) if self.multilabel else targets["train"]
            index["train"], index["val"] = held_out(groups, self.holdout, self.seed)
            targets["val"] = targets["train"][index["val"]]
            targets["train"] = targets["train"][index["train"]]
        if self.train_size is not None and self.train_size < len(targets["train"]):
            targets["train"] = targets["train"][: self.train_size].clone()
            every = torch.arange(self.train_size) if index["train"] is None else index["train"]
            index["train"] = every[: self.train_size].clone()
        self._index, self._targets = index, targets

    def _take_weights(self) -> None:
        """Says what each sample of the training set weighs."""
        target, index, given = self._targets["train"], self._index["train"], self.sample_weight_from
        check = check_labels if self.multilabel else check_classes
        check(None, target, self.classes)
        samples = None if given is None else torch.from_numpy(self.sets["train"].weights(given))
        member = torch.zeros(len(target), dtype=torch.int64) if self.multilabel else target  # class weights: none
        of_class = class_weights(self.class_weight, self.classes, target, "data.class_weight")
        of_train = samples if samples is None or index is None else samples[index]
        self._samples_weigh = of_train
        self._weight = weights_of(of_train, of_class, member)
        check(self._weight, target, self.classes)
        self._weight_of_val = self._as_in_training(samples, of_class, of_train)

    def _as_in_training(self, samples: Tensor | None, of_class: Tensor, of_train: Tensor | None) -> Tensor | None:
        """Returns what samples of the validation set weigh, beside 1 for those of a training set that weigh alike."""
        if self.folds is not None:
            return None
        held, train, val = self._index["val"], self._targets["train"], self._targets["val"]
        if samples is not None and held is None:
            return None  # they lie in a file without weights
        whole = torch.ones(len(val), dtype=torch.float64) if self.multilabel else of_class[val]
        whole = whole if samples is None else whole * samples[held]
        if self._weight is None:
            first = 1.0 if self.multilabel else of_class[train[0]]
            whole = whole / (first * (1 if of_train is None else of_train[0]))
        return None if self._weight is None and bool((whole == 1).all()) else whole

    def _take_folds(self) -> None:
        """Says which fold holds each sample of the training set out, and that few-shot draws can be made."""
        target = self._targets["train"]
        if self.folds is not None:
            groups = None if self.groups_from is None else self.sets["train"].groups(self.groups_from)[: len(target)]
            member = rarest_label(target) if self.multilabel else target
            names = [*self.classes, "none"] if self.multilabel else self.classes
            self.fold = fold_index(member, names, self.folds, self.seed, groups, setting="data.folds")
        for shots in self.shots:
            if short := [name for name, count in zip(self.classes, target.bincount(), strict=True) if count < shots]:
                raise InputError(
                    f"data.shots={shots}: class {listed(short)} has fewer samples; accepted is at most "
                    f"{target.bincount().min()}"
                )

    def weights_of_part(self, index: Tensor) -> Tensor | None:
        if self.class_weight != "balanced":
            return super().weights_of_part(index)
        target = self._targets["train"][index]
        samples = None if self._samples_weigh is None else self._samples_weigh[index]
        return weights_of(samples, class_weights("balanced", self.classes, target), target)

    @property
    def files(self) -> list[File]:
        return [file for shards in self.sets.values() for file in shards.files]

    def about(self) -> dict[str, Any]:
        given = {
            "normalize": self.normalize,
            "holdout": None if "val" in self.sets or self.folds is not None else self.holdout,
            "class_weight": self.class_weight,
            "sample_weight": self.sample_weight_from,
            "folds": self.folds,
            "groups": self.groups_from,
            "shots": self.shots or None,
            "draws": self.draws if self.shots else None,
            "bootstrap": self.bootstrap,
        }
        files = {f"file {file}": f"{file.size} bytes, SHA-256 {file.sha256}" for file in self.files}
        return super().about() | given | files

    def digests(self) -> dict[str, str]:
        return {str(file): file.sha256 for file in self.sets["train"].files}

    def read(self) -> dict[str, Samples]:
        """Reads the features, and looks at each number that is used; also sets what is known only now."""
        found: dict[str, Rows | Tensor] = {}
        for name, shards in self.sets.items():
            held = {"val": self._index["val"]} if name == "train" and "val" in {*self._index} - {*self.sets} else {}
            tensors = shards.read()
            rows = {part: Rows(tensors, index) for part, index in ({name: self._index[name]} | held).items()}
            check_finite(shards.shards, rows.values())
            if name == "train":
                self._transform = self._normalized_by(rows["train"])
            found |= {part: kept(Rows(tensors, self._index[part], self._transform)) for part in rows}
        for file in self.files:
            file.check_unchanged()
        self.sample_weight, self.val_weight = self._weight, self._weight_of_val
        return {name: (found[name], self._targets[name]) for name in ("train", "val", "test") if name in found}

    def _normalized_by(self, train: Rows) -> Transform | None:
        """Returns what normalizes features, by the training set."""
        if self.normalize == "none":
            return None
        if self.normalize == "l2":
            return to_length_one
        self.normalization = shift_and_scale(self.normalize, statistics(train.chunks()), train.dtype)
        return by_columns(*self.normalization)


def kept(rows: Rows) -> Rows | Tensor:
    """Returns the rows in memory, if they are not too many."""
    return rows.in_memory() if rows.shape.numel() * rows.dtype.itemsize <= IN_MEMORY else rows
