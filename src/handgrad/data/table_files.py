"""Tables in .parquet and .csv files: their columns, read by pyarrow."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from handgrad.data.array_files import LISTS, File, check_fits, damage
from handgrad.errors import InputError

TABLES = (".parquet", ".csv")
BATCH = 2**14  # rows that are read at once
INVALID = re.compile(r"In CSV column #(\d+): (?:Row #(\d+): )?CSV conversion error to \w+: invalid value '(.*)'")


class Table:
    """A table in a file.

    Attributes:
        columns: what each column holds, by name: ``number``, ``text``, ``list`` (of numbers), ``lists of text``, else
            its type. Those of a .csv file are guesses from its beginning.

    Raises:
        InputError: the file is damaged, or pyarrow is missing.
    """

    def __init__(self, file: File) -> None:
        self.file = file
        pyarrow = imported(file)
        with damage(file):
            self.schema = pyarrow.parquet.read_schema(file.path) if self.is_parquet else self._csv_schema()
            self.columns = {field.name: kind_of(field.type) for field in self.schema}
        if twice := [name for name, count in Counter(self.schema.names).items() if count > 1]:
            raise InputError(f"{file}: several columns are called {twice[0]!r}; accepted are different names")

    @property
    def is_parquet(self) -> bool:
        return self.file.kind == ".parquet"

    def rows(self) -> int:
        """Returns the number of rows."""
        with damage(self.file):
            if self.is_parquet:
                return imported(self.file).parquet.read_metadata(self.file.path).num_rows
            return self._csv([self.schema.names[0]], {}).num_rows

    def values(self, name: str) -> np.ndarray:
        """Returns a column as an array (N,) of numbers or text; an InputError tells of a cell that is empty."""
        if self.is_parquet:  # a small file can tell of any number of rows
            check_fits(f"{self.file}: column {name!r}", 8 * self.rows())
        with damage(self.file):
            if self.is_parquet:
                column = imported(self.file).parquet.read_table(self.file.path, columns=[name])[name]
            else:
                column = self._csv([name], {})[name]
            return plain_values(column, f"{self.file}: column {name!r}")

    def names(self, name: str) -> np.ndarray:
        """Returns a column of text as an array (N,) of it, or one of lists of text as an array of tuples; empty cells
        are empty ones.
        """
        with damage(self.file):
            if self.is_parquet:
                column = imported(self.file).parquet.read_table(self.file.path, columns=[name])[name]
            else:
                column = self._csv([name], {name: imported(self.file).string()})[name]
            values = column.to_pylist()
        if self.columns[name] == LISTS:
            return np.fromiter((tuple(word or "" for word in row or ()) for row in values), dtype=object)
        return np.array([value or "" for value in values], dtype=str)

    def matrix(self, names: Sequence[str], rows: int) -> Tensor:
        """Returns columns of numbers as a matrix (N, D), an empty cell as NaN; one column of lists as these.

        Raises:
            InputError: a cell holds no number, the file is damaged, or there is not enough memory.
        """
        dtype = self.dtype(names)
        width = self.width(names[0]) if self.columns[names[0]] == "list" else len(names)
        check_fits(str(self.file), rows * width * dtype.itemsize)
        whole = torch.empty((rows, width), dtype=dtype)
        filled = 0
        with damage(self.file):
            for batch in self._batches(names):
                if filled + len(batch) > rows:
                    raise ValueError(f"more rows than the {rows} it tells of")
                fill(whole[filled : filled + len(batch)], batch, self.file, filled)
                filled += len(batch)
            if filled < rows:
                raise ValueError(f"{filled} rows in place of {rows}")
        return whole

    def width(self, name: str) -> int:
        """Returns the length of the lists in a column: that of the first one."""
        field = self.schema.field(name).type
        if (size := getattr(field, "list_size", None)) is not None:
            return size
        with damage(self.file), imported(self.file).parquet.ParquetFile(self.file.path) as opened:
            first = next(opened.iter_batches(batch_size=1, columns=[name]), None)
            return len(first.column(0)[0].as_py() or []) if first is not None and len(first) else 0

    def dtype(self, names: Iterable[str]) -> torch.dtype:
        """Returns float32 where it holds every number of these columns, else float64."""
        small = {"halffloat", "float", "int8", "int16", "uint8", "uint16", "bool"}
        if not self.is_parquet:
            return torch.float64
        types = [self.schema.field(name).type for name in names]
        return torch.float32 if {str(getattr(kind, "value_type", kind)) for kind in types} <= small else torch.float64

    def _batches(self, names: Sequence[str]) -> Iterable[Any]:
        if self.is_parquet:
            with imported(self.file).parquet.ParquetFile(self.file.path) as opened:
                yield from opened.iter_batches(batch_size=BATCH, columns=list(names))
        else:
            float64 = imported(self.file).float64()
            yield from self._csv(names, dict.fromkeys(names, float64)).to_batches(max_chunksize=BATCH)

    def _csv(self, names: Sequence[str], types: dict[str, Any], threads: bool = True) -> Any:
        """Returns columns of a .csv file as pyarrow's table."""
        csv = imported(self.file).csv
        options = csv.ConvertOptions(include_columns=list(names), column_types=types)
        try:
            return csv.read_csv(self.file.path, csv.ReadOptions(use_threads=threads), convert_options=options)
        except imported(self.file).ArrowInvalid as error:
            if not (found := INVALID.search(str(error))):
                raise
            if threads:
                return self._csv(names, types, threads=False)  # which tells the line
            column = self.schema.names[int(found[1])]
            raise InputError(
                f"{self.file}: line {found[2]}, column {column!r}: found {found[3]!r}; accepted are numbers"
            ) from error

    def _csv_schema(self) -> Any:
        with imported(self.file).csv.open_csv(self.file.path) as opened:
            return opened.schema


def imported(file: File) -> Any:
    """Returns pyarrow, or raises an InputError that tells how to get it."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(f"{file}: pyarrow reads it, which is not installed: pip install '.[tables]'") from error
    return pyarrow


def kind_of(arrow: Any) -> str:
    """Returns what a column of pyarrow's type holds."""
    import pyarrow.types as types

    if types.is_dictionary(arrow):
        return kind_of(arrow.value_type)
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        return {"number": "list", "text": LISTS}.get(kind_of(arrow.value_type), str(arrow))
    if types.is_null(arrow) or types.is_boolean(arrow) or types.is_integer(arrow) or types.is_floating(arrow):
        return "number"
    if types.is_decimal(arrow):
        return "number"
    return "text" if types.is_string(arrow) or types.is_large_string(arrow) else str(arrow)


def plain_values(column: Any, name: str) -> np.ndarray:
    """Returns a column of pyarrow's as an array (N,) of numbers or text."""
    import pyarrow

    if (kind := kind_of(column.type)) not in ("number", "text"):
        raise InputError(f"{name} holds {kind}; accepted are numbers or text")
    if column.null_count:
        row = column.is_null().index(True).as_py()
        raise InputError(f"{name}, row {row}: empty; accepted is a value in each row")
    if kind == "text":
        return np.array(column.to_pylist(), dtype=str)
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    return np.asarray(column.to_numpy())


def fill(place: Tensor, batch: Any, file: File, first: int) -> None:
    """Writes the columns of a batch, of which the first row has the number ``first``, into ``place (n, D)``."""
    if kind_of(batch.schema.field(0).type) == "list":
        place.copy_(torch.from_numpy(lists(batch.column(0), place.shape[1], file, first)))
        return
    for number in range(batch.num_columns):
        place[:, number] = torch.from_numpy(floats(batch.column(number)))


def lists(column: Any, width: int, file: File, first: int) -> np.ndarray:
    """Returns a column of lists, all of length ``width``, as a matrix."""
    import pyarrow.compute as compute

    lengths = compute.fill_null(compute.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    if (wrong := np.flatnonzero(lengths != width)).size:
        row = int(wrong[0])
        raise InputError(f"{file}: row {first + row} has {lengths[row]} numbers; accepted is {width}, as in row 0")
    return floats(column.flatten()).reshape(-1, width)


def floats(column: Any) -> np.ndarray:
    """Returns a column of numbers as float32 or float64, an empty cell as NaN; a copy, which can be written to."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pyarrow.types.is_decimal(column.type) or pyarrow.types.is_null(column.type):
        column = column.cast(pyarrow.float64())
    found = column.to_numpy(zero_copy_only=False)
    if found.dtype == object:  # truth values, of which some are missing
        found = np.array([np.nan if value is None else value for value in found.tolist()])
    return found.astype(np.float32 if found.dtype in (np.float16, np.float32) else np.float64)
