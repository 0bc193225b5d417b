"""A classifier's predictions for new features, chunk by chunk, and how good they are where labels are there.

No more than a chunk of features and of probabilities is in memory, where the features are of a kind that stays on disk
(.npy, .safetensors, .pt); of others a shard is. Where samples have several labels, and these are known, their logits
(N, K) stay too: a ranking needs them all.
"""

import csv
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import compress
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from handgrad.classifier import Classifier
from handgrad.data.array_files import arrays_of
from handgrad.data.feature_files import Names, Shard
from handgrad.data.labels import encoded, listed
from handgrad.data.multilabel import indicated
from handgrad.data.rows import CHUNK_NUMBERS, Rows
from handgrad.data.shards import Files, Shards, check_finite
from handgrad.data.table_files import TABLES, Table
from handgrad.errors import InputError, nearest
from handgrad.files import replace_file, replacing
from handgrad.metrics import (
    PerClass,
    confusion_matrix,
    mean_average_precision,
    of_counts,
    outcome,
    outcome_of_labels,
    per_class,
)
from handgrad.tables import aligned

SEPARATOR = ";"  # stands between the names of a sample's labels: the default of data.label_separator
ROWS_SHOWN, COLUMNS_SHOWN = 100, 20  # classes of the tables that are printed


class Chunk(NamedTuple):
    """What is predicted of some rows.

    Attributes:
        probabilities: (n, C) float64.
        classes: (n,) int64, the numbers of the classes; of several labels (n, K), 0 or 1.
    """

    probabilities: np.ndarray
    classes: np.ndarray


class Measures:
    """How good predictions are, added up over chunks.

    Args:
        classes: their names.
        target: ``(N,)`` classes of the samples, in their order.
    """

    def __init__(self, classes: Sequence[int | str], target: Tensor) -> None:
        self.classes, self.target, self.done = classes, target, 0
        self.confusion = torch.zeros(len(classes), len(classes), dtype=torch.float64)
        self.loss = 0.0  # the sum of the negative log probabilities of the labels

    def add(self, logits: Tensor) -> None:
        """Counts the next samples, which have ``logits (n, K)``."""
        target = self.target[self.done : self.done + len(logits)]
        found = outcome(logits, target, keep=False)
        self.confusion += confusion_matrix(found.prediction, target, len(self.classes))
        self.loss += found.loss.sum().item()
        self.done += len(logits)

    def as_dict(self) -> dict[str, Any]:
        """Returns them in types that JSON knows; what is not defined is None."""
        samples, table = self.confusion.sum(), per_class(self.confusion)
        whole = {
            "accuracy": self.confusion.diag().sum() / samples,
            "loss": self.loss / samples,
            "mean_per_class": table.recall.nanmean(),
            "f1_macro": table.f1.nanmean(),
        }
        return {
            "samples": int(samples),
            **{name: value.item() for name, value in whole.items()},
            "classes": rows_of(table, "class", self.classes),
            "confusion": self.confusion.long().tolist(),
        }


class MeasuresOfLabels:
    """How good predictions of several labels are, added up over chunks.

    Args:
        classes: the labels' names.
        target: ``(N, K)``, 0 or 1, of the samples in their order.
    """

    def __init__(self, classes: Sequence[int | str], target: Tensor) -> None:
        self.classes, self.target, self.done = classes, target, 0
        self.logits = torch.empty(target.shape, dtype=torch.float64)  # (N, K), for the rankings
        self.loss, self.right = 0.0, 0  # the sum over samples and labels; samples of which all labels are right

    def add(self, logits: Tensor) -> None:
        """Counts the next samples, which have ``logits (n, K)``."""
        part = slice(self.done, self.done + len(logits))
        found = outcome_of_labels(logits, self.target[part])
        self.logits[part] = logits
        self.loss += found.loss.sum().item()
        self.right += int(found.prediction.sum())
        self.done += len(logits)

    def as_dict(self) -> dict[str, Any]:
        """Returns them in types that JSON knows; what is not defined is None."""
        has, given = self.target.bool(), self.logits > 0
        table = of_counts(*(each.sum(0).double() for each in (has & given, has, given)))
        ranked = mean_average_precision(self.logits, self.target)
        return {
            "samples": self.done,
            "accuracy": self.right / self.done,
            "loss": self.loss / self.done,
            "mean_average_precision": None if ranked != ranked else ranked,
            "labels": rows_of(table, "label", self.classes),
        }


def rows_of(table: PerClass, what: str, names: Sequence[int | str]) -> list[dict[str, Any]]:
    """Returns the rows of a table, each with its name under ``what``, in types that JSON knows."""
    columns = (names, table.samples.long().tolist(), *(column.tolist() for column in table[1:]))
    return [
        {key: None if value != value else value for key, value in zip((what, *table._fields), row, strict=True)}
        for row in zip(*columns, strict=True)
    ]


def predict(
    classifier: Classifier,
    features: Files,
    out: Path,
    *,
    labels: Files | None = None,
    x: str | Sequence[str] | None = None,
    y: str | Sequence[str] | None = None,
    overwrite: bool = False,
) -> tuple[int, dict[str, Any] | None]:
    """Writes what ``classifier`` says of new features; where they have labels, also ``<out>.metrics.json`` beside it.

    Args:
        features: a file, several, or a pattern, as for ``FeatureDataModule``.
        out: by its ending: .csv, .parquet, .npy or .npz.
        labels: the same for labels in files of their own.
        x: name of the array of features, or of the columns; None: of a table those that the classifier was trained on.
        y: name of the labels, of several also the columns of a table; None: ``y``, where it is there; ``null``: they
            are not asked for.
        overwrite: whether files that are there already are replaced.

    Returns:
        The number of rows, and the measures as ``Measures.as_dict``, or that of ``MeasuresOfLabels``, gives them; None
        where there are no labels.

    Raises:
        InputError: anything is not as described; ``out`` is not written then.
        OSError: it cannot be.
    """
    check_out(out)
    with typed_names():
        shards = new_features(classifier, features, labels, x, y)
        target = new_labels(classifier, shards, labels, y)
    check_free(shards, [out] if target is None else [out, metrics_file(out)], overwrite)
    kind = MeasuresOfLabels if classifier.multilabel else Measures
    measures = None if target is None else kind(classifier.classes, target)
    with replacing(out) as temporary:
        write = WRITERS[out.suffix.lower()]
        write(temporary, classifier, shards.rows, predicted(classifier, shards, measures))
    if measures is None:
        return shards.rows, None
    found = measures.as_dict()
    replace_file(metrics_file(out), (json.dumps(found, ensure_ascii=False) + "\n").encode())
    return shards.rows, found


# --- What is asked for ------------------------------------------------------------------------------------------------


def check_out(out: Path) -> None:
    """Raises an InputError unless predictions may be written there, as far as the name tells."""
    if (kind := out.suffix.lower()) not in WRITERS:
        known = ", ".join(WRITERS)
        raise InputError(
            f"out={out}: a {kind or 'file without an ending'}; accepted are {known}{nearest(kind, WRITERS)}"
        )
    if not out.parent.is_dir():
        raise InputError(f"out={out}: no folder {out.parent}; accepted is a file in a folder that is there")
    if out.is_dir():
        raise InputError(f"out={out}: a folder; accepted is a file")
    if kind == ".parquet":
        pyarrow_for(out)


def check_free(shards: Shards, files: Sequence[Path], overwrite: bool) -> None:
    """Raises an InputError if one of ``files`` is there already and not to be replaced, or is read from."""
    for path in files:
        if any(path.exists() and path.samefile(file.path) for file in shards.files):
            raise InputError(f"out={path}: it is read from; accepted is another file")
        if path.exists() and not overwrite:
            raise InputError(f"out={path}: it is there already; accepted is another file, or overwrite=true")


def metrics_file(out: Path) -> Path:
    """Returns where measures go."""
    return out.with_name(f"{out.name}.metrics.json")


@contextmanager
def typed_names() -> Iterator[None]:
    """Makes errors name what is typed here: what is ``data.x`` in training is ``x``."""
    try:
        yield
    except InputError as error:
        raise InputError(re.sub(r"\bdata\.(x|y|labels)=", r"\1=", str(error))) from error


def new_features(
    classifier: Classifier,
    given: Files,
    labels: Files | None,
    x: str | Sequence[str] | None,
    y: str | Sequence[str] | None,
) -> Shards:
    """Returns new features after a look at their headers; an InputError tells if the classifier is of others."""
    if y is not None and not isinstance(y, str):
        y = label_columns(classifier, y)
    separator = SEPARATOR if classifier.multilabel else None
    names = Names(x, None if y == "null" else y, labels="labels", several=separator)
    first = given if isinstance(given, str | Path) else next(iter(given), "")
    if x is None and classifier.feature_names and Path(first).suffix.lower() in TABLES:
        names = replace(names, x=list(classifier.feature_names))
    shards = Shards("features", given, labels, names)
    for shard in shards.shards:
        if shard.shape[1] != classifier.num_features:
            raise InputError(
                f"{shard.file}: {shard.shape[1]} features; accepted are {classifier.num_features}, as the run has them"
            )
        check_columns(shard, classifier)
    return shards


def check_columns(shard: Shard, classifier: Classifier) -> None:
    """Raises an InputError unless named features are those of the training set, in their order."""
    for found, expected in zip(shard.columns or (), classifier.feature_names or (), strict=False):
        if found != expected:
            raise InputError(f"{shard.file}: column {found!r}; accepted is {expected!r}, as in the training set")


def label_columns(classifier: Classifier, y: Sequence[str]) -> list[str]:
    """Returns the columns of labels: in the order of the run's where they are called like these, else as given.

    Raises:
        InputError: some are called like labels and some are not, or a sample has one label.
    """
    names, told = [str(name) for name in classifier.classes], f"y=[{','.join(y)}]"
    if not classifier.multilabel:
        raise InputError(f"{told}: accepted with one label per sample is one name; task=multilabel has several")
    if not set(y) & set(names):
        return list(y)
    if sorted(y) != sorted(names):
        raise InputError(f"{told}: accepted are all of {listed(names)}, or as many columns of other names")
    return names


def new_labels(
    classifier: Classifier, shards: Shards, labels: Files | None, y: str | Sequence[str] | None
) -> Tensor | None:
    """Returns the classes (N,) that the labels name, of several labels which there are (N, K), 0 or 1.

    None: there are no labels, or they are not asked for.

    Raises:
        InputError: a label is no class of the classifier.
    """
    if y == "null" or (labels is None and y is None and not all(has_labels(shard) for shard in shards.shards)):
        return None
    encode = indicated if classifier.multilabel else encoded
    try:
        return encode(shards.labels, classifier.classes, str(shards.files[-1]))
    except InputError as error:
        if labels:
            raise
        raise InputError(f"{error}; y=null measures nothing") from error


def has_labels(shard: Shard) -> bool:
    """Tells whether there is something called ``y`` beside the features."""
    there = Table(shard.file).columns if shard.file.kind in TABLES else arrays_of(shard.file)
    return "y" in there


# --- The work ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def predicted(classifier: Classifier, shards: Shards, measures: Measures | MeasuresOfLabels | None) -> Iterator[Chunk]:
    """Yields what is predicted, in the order of the rows, and counts it in ``measures``.

    Raises:
        InputError: a number is not finite, or a file changes meanwhile.
    """
    at_once = max(1, CHUNK_NUMBERS // max(classifier.num_features, len(classifier.classes)))
    for shard in shards.shards:
        rows = Rows([shard.read()])
        for chunk in rows.split(at_once):
            logits = classifier.logits(chunk)
            if not logits.isfinite().all():
                check_finite([shard], [rows])
                raise InputError(f"{shard.file}: numbers are too large for this classifier; accepted are smaller ones")
            if measures:
                measures.add(logits)
            yield Chunk(classifier.probabilities(logits).numpy(), classifier.decide(logits).numpy())
    for file in shards.files:
        file.check_unchanged()


def columns_of(classes: Sequence[int | str]) -> list[str]:
    """Returns the names of a table's columns."""
    return ["prediction", *(f"p_{name}" for name in classes)]


def joined(names: Sequence[str], chunk: Chunk) -> list[str]:
    """Returns the names of each row's labels, joined."""
    return [SEPARATOR.join(compress(names, row)) for row in chunk.classes.tolist()]


def write_csv(path: Path, classifier: Classifier, rows: int, chunks: Iterator[Chunk]) -> None:
    """Writes a table as text, probabilities with nine digits: so it takes a quarter of the time that all of them do."""
    line = ",".join(["%s", *["%.9g"] * len(classifier.classes)]) + "\n"
    words = [str(name) for name in classifier.classes]
    names = [cells([name]) for name in words]
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(f"{cells(columns_of(classifier.classes))}\n")
        for chunk in chunks:
            if classifier.multilabel:
                said = [text and cells([text]) for text in joined(words, chunk)]
            else:
                said = [names[number] for number in chunk.classes.tolist()]
            file.writelines(line % (name, *row) for name, row in zip(said, chunk.probabilities.tolist(), strict=True))


def cells(values: Sequence[object]) -> str:
    """Returns a row of a .csv file without the end of its line, cells in quotes where they need them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()[:-1]


def write_parquet(path: Path, classifier: Classifier, rows: int, chunks: Iterator[Chunk]) -> None:
    """Writes a table, in groups of rows of about 32 MiB."""
    pyarrow, classes = pyarrow_for(path), classifier.classes
    names, (first, *others) = np.array(classes), columns_of(classes)
    words = [str(name) for name in classes]
    kind = pyarrow.string() if classifier.multilabel or isinstance(classes[0], str) else pyarrow.int64()
    schema = pyarrow.schema([(first, kind), *((name, pyarrow.float64()) for name in others)])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for chunk in chunks:
            said = joined(words, chunk) if classifier.multilabel else names[chunk.classes]
            arrays = [pyarrow.array(said, kind), *map(pyarrow.array, chunk.probabilities.T)]
            batch = pyarrow.record_batch(arrays, schema=schema)
            writer.write_batch(batch, row_group_size=max(1, 2**22 // len(classes)))


def write_npy(path: Path, classifier: Classifier, rows: int, chunks: Iterator[Chunk]) -> None:
    """Writes the probabilities (N, C) float64."""
    with open(path, "wb") as file:
        write_header(file, np.dtype(np.float64), (rows, len(classifier.classes)))
        for chunk in chunks:
            file.write(chunk.probabilities.tobytes())


def write_npz(path: Path, classifier: Classifier, rows: int, chunks: Iterator[Chunk]) -> None:
    """Writes ``probabilities (N, C)`` float64, ``prediction`` and ``classes (C,)``.

    The prediction is (N,) names; of several labels it is (N, K) bool.
    """
    names = np.array(classifier.classes)
    dtype, shape = (np.dtype(bool), (rows, len(names))) if classifier.multilabel else (names.dtype, (rows,))
    with zipfile.ZipFile(path, "w") as archive, tempfile.TemporaryFile(dir=path.parent) as aside:
        with archive.open(zipfile.ZipInfo("probabilities.npy"), "w", force_zip64=True) as member:
            write_header(member, np.dtype(np.float64), (rows, len(names)))
            for chunk in chunks:
                member.write(chunk.probabilities.tobytes())
                said = chunk.classes.astype(bool) if classifier.multilabel else names[chunk.classes]
                aside.write(said.tobytes())
        aside.seek(0)
        with archive.open(zipfile.ZipInfo("prediction.npy"), "w", force_zip64=True) as member:
            write_header(member, dtype, shape)
            while part := aside.read(2**20):
                member.write(part)
        with archive.open(zipfile.ZipInfo("classes.npy"), "w") as member:
            np.lib.format.write_array(member, names, allow_pickle=False)


def write_header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Writes what stands before an array in NumPy's format."""
    told = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, told)


def pyarrow_for(out: Path) -> Any:
    """Returns pyarrow, or raises an InputError that tells how to get it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{out}: pyarrow writes it, which is not installed: pip install '.[tables]'") from error
    return pyarrow


WRITERS: dict[str, Callable[[Path, Classifier, int, Iterator[Chunk]], None]] = {
    ".csv": write_csv,
    ".parquet": write_parquet,
    ".npy": write_npy,
    ".npz": write_npz,
}


# --- For people -------------------------------------------------------------------------------------------------------


def told(measures: dict[str, Any], width: int | None = None) -> str:
    """Returns measures as text: a line, a row per class or label, and the confusion matrix where it is not too wide.

    Args:
        width: of the terminal, which the tables are to fit.
    """
    whole = {name: value for name, value in measures.items() if not isinstance(value, list)}
    lines = [", ".join(f"{name.replace('_', ' ')} {number(value)}" for name, value in whole.items())]
    classes = measures["labels"] if "labels" in measures else measures["classes"]
    if len(classes) > ROWS_SHOWN:
        return lines[0]
    lines += ["", *aligned([list(classes[0]), *([number(value) for value in row.values()] for row in classes)], width)]
    if "confusion" in measures and len(classes) <= COLUMNS_SHOWN:
        labels = [str(row["class"]) for row in classes]
        body = [[label, *map(str, row)] for label, row in zip(labels, measures["confusion"], strict=True)]
        lines += ["", "true \\ predicted", *aligned([["", *labels], *body], width)]
    return "\n".join(lines)


def number(value: Any) -> str:
    """Returns a cell of a table: four decimals of what is not whole by its type, nothing where there is none."""
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)
