"""Several labels per sample: a matrix of 0 and 1, or their names, as targets (N, K)."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handgrad.data.labels import listed
from handgrad.errors import InputError, nearest

ACCEPTED = "accepted with task=multilabel are a matrix (samples, labels) of 0 and 1, or names in each row, like cat;dog"


def rows_of_names(rows: Iterable[Sequence[str]]) -> np.ndarray:
    """Returns the names in each row as an array (N,) of tuples."""
    return np.fromiter((tuple(names) for names in rows), dtype=object)


def plain_label_sets(values: np.ndarray, name: str, separator: str) -> np.ndarray:
    """Returns labels as int64 (N, K) of 0 and 1, or as an array (N,) of tuples of names, which may be empty.

    Args:
        values: numbers (N, K); text (N,), which ``separator`` cuts into names; or tuples of names (N,).
        name: what the message of an InputError begins with, if the labels are none of these.
    """
    if values.dtype.kind == "U" and values.ndim == 1:
        cut = (map(str.strip, row.split(separator)) for row in values.tolist())
        values = rows_of_names([name for name in row if name] for row in cut)
    if values.dtype.kind == "O":
        return values
    if values.dtype.kind not in "biuf" or values.ndim != 2:
        raise InputError(f"{name}: labels of type {values.dtype} and shape {values.shape}; {ACCEPTED}")
    if len(wrong := np.argwhere((values != 0) & (values != 1))):
        row, column = wrong[0].tolist()
        raise InputError(f"{name}: label {column} of row {row} is {values[row, column]}; accepted are 0 and 1")
    return values.astype(np.int64)


def one_form(shards: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Returns the labels of all shards, one after another; an InputError tells of those that are of another form."""

    def form(values: np.ndarray) -> str:
        return "names" if values.dtype.kind == "O" else f"a matrix of {values.shape[1]} labels"

    for values, name in zip(shards, names, strict=True):
        if (found := form(values)) != (expected := form(shards[0])):
            raise InputError(f"{name}: labels are {found}; accepted are {expected}, as in {names[0]}")
    return np.concatenate(shards)


def label_names(labels: np.ndarray, given: Sequence[Any] | None, name: str) -> list[int] | list[str]:
    """Returns what the K labels are called: as they are given, else 0 to K - 1, or all names there are, sorted.

    Raises:
        InputError: there is one label alone, or the names given are not as many as the labels, or not different.
    """
    names = [str(word) for word in given] if given else None
    if labels.dtype.kind == "O":
        names = names or sorted({name for row in labels.tolist() for name in row})
    elif names and len(names) != labels.shape[1]:
        raise InputError(
            f"data.label_names: {len(names)} names; accepted are {labels.shape[1]}, as many as labels in {name}"
        )
    found: list[int] | list[str] = names or [*range(labels.shape[1])]
    if len(set(found)) < len(found):
        raise InputError(f"data.label_names={names}: accepted are different names")
    if len(found) < 2:
        raise InputError(
            f"{name}: {len(found)} label; accepted with task=multilabel are two or more; task=logistic has one"
        )
    return found


def indicated(labels: np.ndarray, names: Sequence[int | str], name: str) -> Tensor:
    """Returns which labels each sample has, (N, K) int64 of 0 and 1.

    Raises:
        InputError: a label is none of ``names``, or the matrix has more or fewer columns.
    """
    if labels.dtype.kind != "O":
        if labels.shape[1] != len(names):
            raise InputError(f"{name}: {labels.shape[1]} labels; accepted are {len(names)}, as in the training set")
        return torch.from_numpy(labels)
    place = {name: number for number, name in enumerate(names)}
    rows = labels.tolist()
    if strange := sorted({word for row in rows for word in row if word not in place}):
        hint = nearest(strange[0], list(map(str, place))) if len(strange) == 1 else ""
        raise InputError(f"{name}: unknown labels {listed(strange)}; accepted are {listed(names)}{hint}")
    found = torch.zeros(len(rows), len(names), dtype=torch.int64)
    pairs = torch.tensor([(row, place[word]) for row, words in enumerate(rows) for word in words]).view(-1, 2)
    found[pairs[:, 0].long(), pairs[:, 1].long()] = 1
    return found


def rarest_label(target: Tensor) -> Tensor:
    """Returns which of its labels the fewest samples have, of each sample (N,) int64; K where it has none.

    A hold-out by this takes a share of a rare label's samples, as one by classes does, and not all of them.
    """
    order = target.sum(0).argsort(stable=True)
    has_any, first = target[:, order].max(1)
    return torch.where(has_any > 0, order[first], target.shape[1])


def check_labels(weight: Tensor | None, target: Tensor, names: Sequence[int | str]) -> None:
    """Raises an InputError if all samples of the training set, or none, have a label: its bias has no optimum.

    Args:
        weight: (N,) of the samples; None: all weigh alike.
    """
    counted = torch.ones(len(target), dtype=torch.float64) if weight is None else weight
    counts, whole = counted @ target.double(), counted.sum()
    for has, told in ((counts == 0, "no sample"), (counts == whole, "every sample")):
        if missing := [name for name, wrong in zip(names, has.tolist(), strict=True) if wrong]:
            of_weight = "" if weight is None else " that weighs anything"
            raise InputError(
                f"label {listed(missing)}: {told}{of_weight} of the training set has it; "
                "accepted is a label that some have and others lack"
            )
