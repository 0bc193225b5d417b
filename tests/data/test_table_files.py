"""Tables: the columns as matrix and as labels, and what they hold that is no number."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from sklearn.datasets import load_breast_cancer

from handgrad.data import array_files, table_files
from handgrad.data.array_files import File
from handgrad.data.table_files import Table
from handgrad.errors import InputError


def parquet(path: Path, **columns) -> Table:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return Table(File(path))


def csv(path: Path, text: str) -> Table:
    path.write_text(text)
    return Table(File(path))


def refusal(call) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8, np.int64, bool])
def test_columns_of_every_type_are_a_matrix(dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BATCH", 100)
    x = load_breast_cancer().data.astype(dtype)
    names = [f"f{number}" for number in range(30)]
    table = parquet(tmp_path / "a.parquet", **dict(zip(names, x.T, strict=True)))
    assert table.rows() == 569
    assert set(table.columns.values()) == {"number"}
    found = table.matrix(names[::-1], 569)
    assert found.dtype == (torch.float64 if dtype in (np.float64, np.int64) else torch.float32)
    assert np.array_equal(found.numpy(), x[:, ::-1].astype(found.numpy().dtype))


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 3), pa.large_list(pa.float32())])
def test_a_column_of_lists_is_a_matrix(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BATCH", 2)
    x = np.arange(15, dtype=np.float32).reshape(5, 3)
    table = parquet(tmp_path / "a.parquet", x=pa.array(x.tolist(), kind))
    assert (table.columns, table.width("x")) == ({"x": "list"}, 3)
    assert torch.equal(table.matrix(["x"], 5), torch.tensor(x))


def test_lists_of_other_lengths_are_told(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "BATCH", 2)
    for wrong in ([1.0], None, []):
        table = parquet(tmp_path / "a.parquet", x=[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], wrong])
        line = refusal(lambda table=table: table.matrix(["x"], 4))
        assert f"a.parquet: row 3 has {len(wrong or [])} numbers; accepted is 2, as in row 0" in line


def test_empty_cells_are_not_a_number(tmp_path):
    table = parquet(
        tmp_path / "a.parquet",
        a=[1.0, None],
        b=pa.array([None, 3], pa.int64()),
        c=[True, None],
        d=pa.array([None, None]),
        e=pa.array([1, None]).cast(pa.decimal128(21, 1)),
        f=pa.array([1, None]).dictionary_encode(),
    )
    found = table.matrix(list("abcdef"), 2).tolist()
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert found == [[1, nan, 1, nan, 1, 1], [nan, 3, nan, nan, nan, nan]]
    assert torch.isnan(csv(tmp_path / "a.csv", "a,b\n1,\n2,NaN\n").matrix(["a", "b"], 2)[:, 1]).all()


def test_labels_of_every_type(tmp_path):
    text = ["b", "a", "b"]
    table = parquet(
        tmp_path / "a.parquet", t=text, d=pa.array(text).dictionary_encode(), n=[3, 1, 2], l=[[1], [2], [3]]
    )
    assert [table.values(name).tolist() for name in ("t", "d", "n")] == [text, text, [3, 1, 2]]
    assert "column 'l' holds list; accepted are numbers or text" in refusal(lambda: table.values("l"))
    assert csv(tmp_path / "a.csv", 'a,y\n1,"x, y"\n2,10\n').values("y").tolist() == ["x, y", "10"]
    missing = parquet(tmp_path / "b.parquet", y=["a", None])
    assert "column 'y', row 1: empty; accepted is a value in each row" in refusal(lambda: missing.values("y"))


def test_a_cell_that_is_no_number_is_told_with_its_line(tmp_path):
    rows = "\n".join(["1,2,u"] * 5000 + ["3,x,v"])
    table = csv(tmp_path / "a.csv", f"a,b,y\n{rows}\n")
    line = refusal(lambda: table.matrix(["a", "b"], 5001))
    assert line == f"{tmp_path}/a.csv: line 5002, column 'b': found 'x'; accepted are numbers"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "damaged, or no .csv file (Empty CSV file)"),
        ("\n", "damaged, or no .csv file"),
        ("a,b\n1,2\n3\n", "Expected 2 columns, got 1: 3)"),
        ("a,a\n1,2\n", "several columns are called 'a'; accepted are different names"),
    ],
)
def test_tables_that_are_none(text, told, tmp_path):
    assert told in refusal(lambda: csv(tmp_path / "a.csv", text))


def test_damaged_and_cut_files(tmp_path):
    path = tmp_path / "a.parquet"
    x = np.random.default_rng(0).normal(size=500)
    parquet(path, x=x, y=np.arange(500) % 3)
    content = path.read_bytes()
    random = np.random.default_rng(0)
    for size in (0, 1, 4, 12, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        assert "damaged, or no .parquet file" in refusal(lambda: Table(File(path)))
    told = 0
    for _ in range(40):
        damaged = bytearray(content)
        damaged[random.integers(0, len(content))] ^= 1 << random.integers(0, 8)
        path.write_bytes(damaged)
        try:
            table = Table(File(path))
            table.matrix(["x"], table.rows())
        except (InputError, KeyError):  # the latter where the name of a column was hit
            told += 1
    assert told


def test_what_does_not_fit_into_memory_is_not_read(tmp_path, monkeypatch):
    table = parquet(tmp_path / "a.parquet", x=np.zeros(10**6), y=np.zeros(10**6, np.int64))
    monkeypatch.setattr(array_files, "available_memory", lambda: 1000)
    assert "needs 8,000,000 bytes of memory" in refusal(lambda: table.matrix(["x"], 10**6))
    assert "needs 8,000,000 bytes of memory" in refusal(lambda: table.values("y"))


def test_without_pyarrow_it_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = refusal(lambda: csv(tmp_path / "a.csv", "a\n1\n"))
    assert line.endswith("a.csv: pyarrow reads it, which is not installed: pip install '.[tables]'")


def test_a_name_that_is_no_text(tmp_path):
    path = tmp_path / "a.parquet"
    schema = pa.table({"column_a": [1.0], "y": [1]})
    pyarrow.parquet.write_table(schema, path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"column_a", b"column_\xff"))
    assert "damaged, or no .parquet file ('utf-8' codec can't decode" in refusal(lambda: Table(File(path)))
