"""Features, labels and weights as they stand in files: one file, or shards, which are the rows of one matrix."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handgrad.data.array_files import LISTS, READERS, File, Stored, arrays_of, damage
from handgrad.data.table_files import TABLES, Table
from handgrad.errors import InputError, nearest

FEATURES = (*READERS, *TABLES)
VECTORS = (*FEATURES, ".txt")
HELD = {"y": "labels", "sample_weight": "sample weights", "groups": "groups"}  # what settings name
WHOLE_NUMBER = re.compile(r"[+-]?\d+")
NAMES_SHOWN = 8


@dataclass(frozen=True)
class Names:
    """What the arrays or columns of a file are called.

    Attributes:
        x: the features; several columns of a table; None: ``x`` or the only matrix, of a table all other columns.
        y: the labels; of several labels, several columns of a table too; None: ``y``, or the only array that can be
            meant.
        weight: the sample weights; None: there are none.
        groups: the groups of a cross-validation; None: there are none.
        labels: the setting that names files of labels, for who finds none.
        several: what stands between the names of several labels; None: a sample has one label.
    """

    x: str | Sequence[str] | None = None
    y: str | Sequence[str] | None = None
    weight: str | None = None
    groups: str | None = None
    labels: str = "train_labels"
    several: str | None = None


@dataclass(frozen=True)
class Shard:
    """A file of features, of which the header has been read.

    Attributes:
        shape: ``(N, D)``.
        dtype: as it is stored; of a table as it is read.
        columns: the features' names, of a table.
        read: returns the features (N, D), memory-mapped where the file allows it.
        labels, weights, groups: return those that stand beside the features, (N,), or raise an InputError if none do;
            several labels are (N, K), or names.
    """

    file: File
    shape: tuple[int, int]
    dtype: torch.dtype
    columns: tuple[str, ...] | None
    read: Callable[[], Tensor]
    labels: Callable[[], np.ndarray]
    weights: Callable[[], np.ndarray]
    groups: Callable[[], np.ndarray]


def files_of(name: str, given: Any, accepted: Sequence[str]) -> list[File]:
    """Returns the files that a path, a pattern or a list of these names; those of a pattern are sorted.

    Raises:
        InputError: ``given`` names no file, or one that is none, or of an unknown kind.
    """
    words = [given] if isinstance(given, str | Path) else list(given) if isinstance(given, Iterable) else []
    if not words or not all(isinstance(word, str | Path) and str(word) for word in words):
        raise InputError(f"{name}={given!r}: accepted is a file, a list of files, or a pattern like features/*.npy")
    paths = [path for word in words for path in expanded(name, str(word))]
    for path in paths:
        if (kind := path.suffix.lower()) not in accepted and not os.path.isdir(path):
            kinds = ", ".join(accepted)
            raise InputError(f"{path}: a {kind or 'file without an ending'}; accepted in {name} are {kinds}")
    return [File(path) for path in paths]


def expanded(name: str, word: str) -> list[Path]:
    """Returns the one file of a path, or the sorted ones of a pattern."""
    # os.path answers where Path would raise: names that are too long, folders that may not be looked into.
    if glob.has_magic(word) and not os.path.exists(word):
        if not (found := sorted(glob.glob(word, recursive=True))):
            raise InputError(f"{name}={word}: no file matches; accepted is a pattern like features/*.npy")
        return [Path(path) for path in found]
    path, beside = Path(word), []
    if not os.path.exists(path):
        with suppress(OSError, ValueError):
            beside = os.listdir(path.parent)
        raise InputError(f"{path}: no such file{nearest(path.name, beside)}")
    return [path]


# --- Features ---------------------------------------------------------------------------------------------------------


def shard_of(file: File, names: Names) -> Shard:
    """Returns a file of features after a look at its header.

    Raises:
        InputError: the file is damaged, or has no features such as are accepted.
    """
    return table_shard(file, names) if file.kind in TABLES else array_shard(file, names)


def array_shard(file: File, names: Names) -> Shard:
    arrays = arrays_of(file)
    if names.x is not None and not isinstance(names.x, str):
        raise InputError(f"{file}: x={list(names.x)}: accepted is one name; lists are for columns of tables")
    name = names.x or likely(arrays, "x", lambda array: len(array.shape) == 2 and array.kind == "number")
    found = chosen(file, arrays, name, "x", "features")
    check_matrix(f"{file}{f': {name}' if name else ''}", found)
    assert found.dtype is not None

    others = {key: array for key, array in arrays.items() if key != name}
    weights = partial(vector_of_arrays, file, others, names.weight, "sample_weight")
    groups = partial(vector_of_arrays, file, others, names.groups, "groups")
    unweighted = {key: array for key, array in others.items() if key not in (names.weight, names.groups)}
    otherwise, several = f"data.{names.labels}=<file>", names.several is not None
    labels = partial(vector_of_arrays, file, unweighted, names.y, "y", otherwise, several)
    shape = found.shape[0], found.shape[1]
    return Shard(file, shape, found.dtype, None, reader(file, found), labels, weights, groups)


def reader(file: File, found: Stored) -> Callable[[], Tensor]:
    def read() -> Tensor:
        with damage(file):
            return found.read()

    return read


def check_matrix(name: str, found: Stored) -> None:
    """Raises an InputError unless an array is a matrix of numbers with rows and columns."""
    if found.kind != "number":
        raise InputError(f"{name} holds {found.kind}; accepted in features are integers and floating-point numbers")
    if len(found.shape) != 2:
        raise InputError(f"{name} has shape {found.shape}; accepted in features is (samples, features)")
    if 0 in found.shape:
        none = "rows" if found.shape[0] == 0 else "columns"
        raise InputError(f"{name} has shape {found.shape}: no {none}; accepted is at least one")


def likely(arrays: Mapping[str, Stored], usual: str, fits: Callable[[Stored], bool]) -> str | None:
    """Returns the usual name if there is an array of it, else the name of the only one that fits, else None."""
    if usual in arrays:
        return usual
    found = [name for name, array in arrays.items() if fits(array)]
    return found[0] if len(found) == 1 else next(iter(arrays)) if len(arrays) == 1 else None


def chosen(
    file: File, arrays: Mapping[str, Stored], name: str | None, key: str, what: str, otherwise: str = ""
) -> Stored:
    """Returns the array ``name``, or the only one of a file that names none.

    Args:
        key: the setting that names it.
        what: it holds.
        otherwise: what else is accepted, for the InputError that tells of a name that is not there.
    """
    there = list(arrays)
    if there == [""]:
        return arrays[""]
    if name is not None and name in arrays:
        return arrays[name]
    if not there:
        raise InputError(f"{file}: no {what} beside the features; accepted is {otherwise or 'another file'}")
    shapes = [f"{other} {arrays[other].shape}" for other in there[:NAMES_SHOWN]]
    holds = ", ".join(shapes + ["…"] * (len(there) > NAMES_SHOWN)) or "nothing else"
    hint = nearest(name, there) if name else ""
    named = f"data.{key}=<one of them>" + (f" or {otherwise}" if otherwise else "")
    raise InputError(f"{file}: no {what} {name or key!r}; found {holds}; accepted is {named}{hint}")


def table_shard(file: File, names: Names) -> Shard:
    table = Table(file)
    columns = feature_columns(table, names)
    rows = table.rows()
    width = table.width(columns[0]) if table.columns[columns[0]] == "list" else len(columns)
    if not rows or not width:
        raise InputError(f"{file}: no {'columns' if rows else 'rows'}; accepted is at least one")

    labels = partial(column_of, table, names.y or "y", "y", f"data.{names.labels}=<file>", names.several is not None)
    weights = partial(column_of, table, names.weight or "", "sample_weight")
    groups = partial(column_of, table, names.groups or "", "groups")
    read = partial(table.matrix, columns, rows)
    told = None if table.columns[columns[0]] == "list" else tuple(columns)
    return Shard(file, (rows, width), table.dtype(columns), told, read, labels, weights, groups)


def feature_columns(table: Table, names: Names) -> list[str]:
    """Returns the columns that are features: those of ``x``, or all but the labels, weights and groups."""
    if names.x is not None:
        found = [names.x] if isinstance(names.x, str) else list(names.x)
        check_columns(table, found, "x")
    else:
        labels = [names.y or "y"] if isinstance(names.y or "y", str) else list(names.y or ())
        found = [name for name in table.columns if name not in (*labels, names.weight, names.groups)]
    if not found:
        raise InputError(f"{table.file}: no column is left for features; accepted is at least one")
    allowed = ("number", "list") if len(found) == 1 else ("number",)
    for name in found:
        if (kind := table.columns[name]) not in allowed:
            raise InputError(
                f"{table.file}: column {name!r} holds {'lists' if kind == 'list' else kind}; accepted in features are"
                " numbers; data.x=[…] lists the columns that are features"
            )
    return found


def check_columns(table: Table, wanted: Sequence[str], key: str, otherwise: str = "") -> None:
    """Raises an InputError if a column is not there."""
    for name in wanted:
        if name not in table.columns:
            there = list(table.columns)
            told = ", ".join(there[:NAMES_SHOWN] + ["…"] * (len(there) > NAMES_SHOWN))
            raise InputError(
                f"{table.file}: no column {name!r}; it has {told}; accepted is data.{key}=<one of them>"
                f"{' or ' if otherwise else ''}{otherwise}{nearest(name, there)}"
            )


# --- Labels and weights -----------------------------------------------------------------------------------------------


def vector_of(file: File, name: str | Sequence[str] | None, key: str, several: bool = False) -> np.ndarray:
    """Returns the labels or weights (N,) that a file of its own holds.

    Args:
        name: of the array or column; None: ``key``, or the only one that can be meant.
        key: of ``HELD``.
        several: whether a sample has several labels: then they are numbers (N, K), text (N,), or tuples of names (N,).

    Raises:
        InputError: there is no such array, or the file is damaged.
    """
    if file.kind == ".txt":
        return words_of(file) if several else lines_of(file)
    if file.kind not in TABLES:
        return vector_of_arrays(file, arrays_of(file), name, key, several=several)
    table = Table(file)
    only = next(iter(table.columns)) if len(table.columns) == 1 else key
    return column_of(table, name or only, key, several=several)


def column_of(
    table: Table, name: str | Sequence[str], key: str, otherwise: str = "", several: bool = False
) -> np.ndarray:
    """Returns a column of a table, or several as a matrix; see ``vector_of``."""
    if not isinstance(name, str):
        check_columns(table, name, key, otherwise)
        return np.stack([table.values(each) for each in name], 1)
    check_columns(table, [name], key, otherwise)
    kind = table.columns[name]
    if several and kind in ("text", LISTS):
        return table.names(name)
    if several and kind == "list":
        return table.matrix([name], table.rows()).numpy()
    return table.values(name)


def vector_of_arrays(
    file: File,
    arrays: Mapping[str, Stored],
    name: str | Sequence[str] | None,
    key: str,
    otherwise: str = "",
    several: bool = False,
) -> np.ndarray:
    """Returns the labels or weights ``name`` of a file's arrays, (N,); see ``vector_of`` and ``chosen``."""
    if name is not None and not isinstance(name, str):
        raise InputError(f"{file}: {key}={list(name)}: accepted is one name; lists are for columns of tables")
    kinds, axes = (("number", "text", LISTS), (1, 2)) if several else (("number", "text"), (1,))
    name = name or likely(arrays, key, lambda array: len(array.shape) in axes and array.kind in kinds)
    what = HELD[key]
    found = chosen(file, arrays, name, key, what, otherwise)
    told = f"{file}: {name}" if name else f"{file}"
    if found.kind not in kinds:
        raise InputError(f"{told} holds {found.kind}; accepted in {what} are numbers or text")
    if len(found.shape) not in axes:
        more = ", and (samples, labels) with task=multilabel" if key == "y" else ""
        raise InputError(f"{told} has shape {found.shape}; accepted in {what} is (samples,){more}")
    with damage(file):
        values = found.read()
        return values if isinstance(values, np.ndarray) else plain_numbers(values)


def plain_numbers(values: Tensor) -> np.ndarray:
    """Returns a tensor as an array in memory; NumPy does not know bfloat16."""
    return (values.to(torch.float32) if values.dtype == torch.bfloat16 else values).numpy().copy()


def words_of(file: File) -> np.ndarray:
    """Returns the lines of a text file as text, (N,)."""
    with damage(file):
        lines = file.path.read_text(encoding="utf-8-sig").splitlines()
    return np.array([line.strip() for line in lines], dtype=str)


def lines_of(file: File) -> np.ndarray:
    """Returns the lines of a text file: whole numbers if all are, else numbers if all are, else text."""
    words = words_of(file).tolist()
    if "" in words:
        raise InputError(f"{file}: line {words.index('') + 1} is empty; accepted is one label in each line")
    if words and all(WHOLE_NUMBER.fullmatch(word) for word in words):
        with damage(file):
            return np.array([int(word) for word in words], dtype=np.int64)
    try:
        return np.array([float(word) for word in words])
    except ValueError:
        return np.array(words, dtype=str)
