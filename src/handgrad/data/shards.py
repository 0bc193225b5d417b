"""The features of one set, which may lie in several files, and their labels."""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from handgrad.data.feature_files import FEATURES, HELD, VECTORS, Names, Shard, files_of, shard_of, vector_of
from handgrad.data.labels import one_kind, plain_labels, plain_weights
from handgrad.data.multilabel import one_form, plain_label_sets
from handgrad.data.rows import Rows
from handgrad.errors import InputError

Files = str | Path | Sequence[str | Path]


class Shards:
    """A set: shards of features, which are the rows of one matrix, and their labels.

    Args:
        name: ``train``, ``val`` or ``test``.
        given: a file, several, or a pattern.
        labels: the same for the labels; None: they stand beside the features.
        names: of arrays or columns.

    Attributes:
        shards: of the features, after a look at their headers.
        files: all that belong to the set; those of labels and weights of their own come when these are read.

    Raises:
        InputError: something is missing, damaged, or does not fit together.
    """

    def __init__(self, name: str, given: Files, labels: Files | None, names: Names) -> None:
        self.shards = [shard_of(file, names) for file in files_of(name, given, FEATURES)]
        self.files = [shard.file for shard in self.shards]
        check_alike(self.shards, self.shards[0])
        self._labels, self._names = labels, names

    @cached_property
    def labels(self) -> np.ndarray:
        """``(N,)`` int64 or text, as they stand beside the features or in files of their own.

        Several labels are ``(N, K)`` int64 of 0 and 1, or ``(N,)`` tuples of names.

        Raises:
            InputError: as above.
        """
        own = [] if self._labels is None else files_of(f"data.{self._names.labels}", self._labels, VECTORS)
        several = self._names.several
        found = [(file, vector_of(file, self._names.y, "y", several is not None)) for file in own]
        found = found or [(shard.file, shard.labels()) for shard in self.shards]
        self.files += own
        told = [str(file) for file, _ in found]
        plain = [
            plain_labels(values, place) if several is None else plain_label_sets(values, place, several)
            for place, (_, values) in zip(told, found, strict=True)
        ]
        self.check_lengths(told, plain, "labels")
        return one_kind(plain, told) if several is None else one_form(plain, told)

    @property
    def rows(self) -> int:
        return sum(shard.shape[0] for shard in self.shards)

    def check_lengths(self, names: Sequence[str], vectors: Sequence[np.ndarray], what: str) -> None:
        """Raises an InputError unless there is one label, or weight, for each row of each shard."""
        if len(vectors) == len(self.shards):
            for shard, name, values in zip(self.shards, names, vectors, strict=True):
                if len(values) != shard.shape[0]:
                    raise InputError(
                        f"{name}: {len(values)} {what}, and {shard.shape[0]} rows of features in {shard.file}; "
                        "accepted are equal numbers"
                    )
        elif (found := sum(map(len, vectors))) != self.rows:
            raise InputError(
                f"{names[0]}: {found} {what}, and {self.rows} rows of features; accepted are equal numbers"
            )

    def weights(self, given: str) -> np.ndarray:
        """Returns the sample weights (N,) float64.

        Args:
            given: name of an array or column in the files, which ``names`` had too; else a file, or a pattern.
        """
        told, found = self._vectors(given, "sample_weight", lambda shard: shard.weights())
        return np.concatenate([plain_weights(values, name) for name, values in zip(told, found, strict=True)])

    def groups(self, given: str) -> np.ndarray:
        """Returns the groups (N,), numbers or text; ``given`` as for ``weights``."""
        told, found = self._vectors(given, "groups", lambda shard: shard.groups())
        return one_kind(found, told)

    def _vectors(
        self, given: str, key: str, beside: Callable[[Shard], np.ndarray]
    ) -> tuple[list[str], list[np.ndarray]]:
        """Returns the names of files, and what each holds for its rows: beside the features, or by itself."""
        own = files_of(f"data.{key}", given, VECTORS) if is_file(given) else []
        found = [(file, vector_of(file, None, key)) for file in own]
        found = found or [(shard.file, beside(shard)) for shard in self.shards]
        self.files += own
        told, vectors = [str(file) for file, _ in found], [values for _, values in found]
        self.check_lengths(told, vectors, HELD[key])
        return told, vectors

    def read(self) -> list[Tensor]:
        """Returns the features of each shard, (N, D), memory-mapped where the file allows it."""
        return [shard.read() for shard in self.shards]


def check_alike(shards: Sequence[Shard], first: Shard) -> None:
    """Raises an InputError unless all shards have the features of the first one, of one type."""
    for shard in shards:
        if shard.dtype != first.dtype:
            found, expected = (str(each.dtype).removeprefix("torch.") for each in (shard, first))
            raise InputError(f"{shard.file}: numbers of type {found}; accepted is {expected}, as in {first.file}")
        check_features(shard, first)


def check_features(shard: Shard, first: Shard) -> None:
    """Raises an InputError unless both have the same features, in the same order."""
    if shard.shape[1] != first.shape[1]:
        raise InputError(f"{shard.file}: {shard.shape[1]} features; accepted are {first.shape[1]}, as in {first.file}")
    if shard.columns and first.columns:
        for found, expected in zip(shard.columns, first.columns, strict=True):
            if found != expected:
                raise InputError(f"{shard.file}: column {found!r}; accepted is {expected!r}, as in {first.file}")


def check_finite(shards: Sequence[Shard], sets: Iterable[Rows]) -> None:
    """Raises an InputError that names the first row and column, of these rows, in which there is no finite number."""
    wrong = [place for rows in sets if (place := first_not_finite(rows))]
    if wrong:
        shard, row, column, value = min(wrong)
        told = (shards[shard].columns or range(column + 1))[column]
        raise InputError(
            f"{shards[shard].file}: row {row}, column {told!r}: found {value}; accepted are finite numbers"
        )


def first_not_finite(rows: Rows) -> tuple[int, int, int, float] | None:
    """Returns the first NaN or infinity as (shard, row in it, column, number); None: there is none."""
    if not rows.shards[0].is_floating_point():
        return None
    start = 0
    for chunk in rows.chunks():
        if not chunk.sum(dtype=torch.float64).isfinite() and not (fine := chunk.isfinite()).all():
            row, column = (~fine).nonzero()[0].tolist()
            return *rows.stored_at(start + row), column, float(chunk[row, column])
        start += len(chunk)
    return None


def is_file(word: str) -> bool:
    """Tells whether a word means a file, and not an array or a column, by its ending."""
    return Path(word).suffix.lower() in VECTORS
