"""Which files are meant, and which of their arrays are features and labels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from handgrad.data.array_files import File
from handgrad.data.feature_files import FEATURES, VECTORS, Names, files_of, shard_of, vector_of
from handgrad.errors import InputError

X = np.arange(12.0).reshape(4, 3)
Y = np.array([3, 1, 3, 1])


def npz(path: Path, **arrays) -> File:
    np.savez(path, **arrays)
    return File(path)


def text(path: Path, content: str) -> File:
    path.write_text(content, encoding="utf-8")
    return File(path)


def refusal(call) -> str:
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A folder with shards, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    Path("sub").mkdir()
    for name in ("b.npy", "a.npy", "a10.npy", "a[1].npy", "sub/c.npy", "labels.txt"):
        Path(name).touch()


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("b.npy", ["b.npy"]),
        (Path("b.npy"), ["b.npy"]),
        (["b.npy", "a.npy"], ["b.npy", "a.npy"]),  # in the order given
        ("a*.npy", ["a.npy", "a10.npy", "a[1].npy"]),
        ("?.npy", ["a.npy", "b.npy"]),
        ("**/*.npy", ["a.npy", "a10.npy", "a[1].npy", "b.npy", "sub/c.npy"]),
        (["sub/*.npy", "b.npy"], ["sub/c.npy", "b.npy"]),
        ("a[1].npy", ["a[1].npy"]),  # a file of that very name
    ],
)
def test_which_files_are_meant(given, found, there):
    assert [str(file) for file in files_of("train", given, FEATURES)] == found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("labels.tx", "labels.tx: no such file; did you mean 'labels.txt'?"),
        ("none/c.npy", "none/c.npy: no such file"),
        ("n" * 300 + ".npy", "n" * 300 + ".npy: no such file"),
        ("b.npy/c.npy", "b.npy/c.npy: no such file"),
        ("a\0.npy", "a\\x00.npy: no such file"),
        ("c*.npy", "train=c*.npy: no file matches; accepted is a pattern like features/*.npy"),
        ("sub", "sub: a folder; accepted is a file, or its shards by a pattern like sub/*.npy"),
        ("labels.txt", "labels.txt: a .txt; accepted in train are .npy, .npz, .safetensors, .pt, .parquet, .csv"),
        ("", "train='': accepted is a file, a list of files, or a pattern like features/*.npy"),
        ([], "train=[]: accepted is"),
        (["a.npy", ""], "train=['a.npy', '']: accepted is"),
        (["a.npy", 3], "train=['a.npy', 3]: accepted is"),
        (7, "train=7: accepted is"),
    ],
)
def test_files_that_are_none(given, told, there):
    assert refusal(lambda: files_of("train", given, FEATURES)).startswith(told)
    assert [str(file) for file in files_of("train_labels", "labels.txt", VECTORS)] == ["labels.txt"]


# --- Arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({"x": X, "y": Y}, Names()),
        ({"x": X, "y": Y, "z": X, "t": Y}, Names()),
        ({"X": X, "label": Y}, Names()),  # the only matrix, the only labels
        ({"X": X, "label": np.array(["3", "1", "3", "1"])}, Names()),
        ({"z": X, "x": -X, "t": Y, "y": -Y}, Names("z", "t")),
        ({"emb": X, "w": np.ones(4), "t": Y}, Names(weight="w")),
    ],
)
def test_features_and_labels_of_an_archive(arrays, names, tmp_path):
    shard = shard_of(npz(tmp_path / "a.npz", **arrays), names)
    assert (shard.shape, shard.dtype, shard.columns) == ((4, 3), torch.float64, None)
    assert torch.equal(shard.read(), torch.tensor(X))
    assert shard.labels().tolist() in ([3, 1, 3, 1], ["3", "1", "3", "1"])
    if names.weight:
        assert shard.weights().tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arrays", "names", "told"),
    [
        ({"a": X, "b": X, "y": Y}, Names(), "a.npz: no features 'x'; found a (4, 3), b (4, 3), y (4,); accepted is "),
        ({"x": X, "y": Y}, Names("features"), "no features 'features'; found x (4, 3), y (4,); accepted is data.x=<"),
        ({"xs": X, "y": Y}, Names("x"), "accepted is data.x=<one of them>; did you mean 'xs'?"),
        ({"x": X, "y": Y}, Names(["x", "y"]), "x=['x', 'y']: accepted is one name; lists are for columns of tables"),
        ({}, Names(), "no features beside"),
        ({"x": X[0], "y": Y}, Names(), "x has shape (3,); accepted in features is (samples, features)"),
        ({"x": X[None], "y": Y}, Names(), "x has shape (1, 4, 3); accepted in features is (samples, features)"),
        ({"x": X[:0], "y": Y[:0]}, Names(), "x has shape (0, 3): no rows; accepted is at least one"),
        ({"x": X[:, :0], "y": Y}, Names(), "x has shape (4, 0): no columns; accepted is at least one"),
        ({"x": X * 1j, "y": Y}, Names(), "x holds complex numbers; accepted in features are integers and floating"),
        ({"x": X.astype(str), "y": Y}, Names(), "x holds text; accepted in features are integers and floating"),
        ({"x": X.astype(object), "y": Y}, Names(), "x holds Python objects (pickled, and so never loaded)"),
    ],
)
def test_features_that_are_none(arrays, names, told, tmp_path):
    assert told in refusal(lambda: shard_of(npz(tmp_path / "a.npz", **arrays), names))


@pytest.mark.parametrize(
    ("arrays", "names", "told"),
    [
        ({"x": X}, Names(), "a.npz: no labels beside the features; accepted is data.train_labels=<file>"),
        ({"x": X}, Names(labels="val_labels"), "accepted is data.val_labels=<file>"),
        ({"x": X, "a": Y, "b": Y}, Names(), "no labels 'y'; found a (4,), b (4,); accepted is data.y=<one of them> or"),
        ({"x": X, "label": Y}, Names(y="labels"), "or data.train_labels=<file>; did you mean 'label'?"),
        ({"x": X, "y": X}, Names("x"), "y has shape (4, 3); accepted in labels is (samples,)"),
        ({"x": X, "y": Y.astype(object)}, Names(), "y holds Python objects (pickled, and so never loaded)"),
        ({"x": X, "y": Y * 1j}, Names(), "y holds complex numbers; accepted in labels are numbers or text"),
    ],
)
def test_labels_that_are_none(arrays, names, told, tmp_path):
    shard = shard_of(npz(tmp_path / "a.npz", **arrays), names)  # labels may stand elsewhere
    assert told in refusal(shard.labels)


# --- Tables -----------------------------------------------------------------------------------------------------------

TABLE = "a,b,y,w\n1,2,u,1\n3,4,v,2\n"


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (Names(), ["a", "b", "w"]),
        (Names(weight="w"), ["a", "b"]),
        (Names(["b", "a"]), ["b", "a"]),  # in the order given
        (Names("b"), ["b"]),
    ],
)
def test_columns_that_are_features(names, columns, tmp_path):
    shard = shard_of(text(tmp_path / "a.csv", TABLE), names)
    assert shard.columns == tuple(columns)
    assert shard.shape == (2, len(columns))
    rows = {"a": [1, 3], "b": [2, 4], "w": [1, 2]}
    assert shard.read().t().tolist() == [rows[name] for name in columns]
    assert shard.labels().tolist() == ["u", "v"]
    if names.weight:
        assert shard.weights().tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "names", "told"),
    [
        (TABLE, Names(["a", "c"]), "no column 'c'; it has a, b, y, w; accepted is data.x=<one of them>"),
        (TABLE, Names("y"), "column 'y' holds text; accepted in features are numbers; data.x=[…] lists the columns"),
        (TABLE, Names(y="b"), "column 'y' holds text; accepted in features are numbers"),
        ("a,y\n2020-01-01,1\n", Names(), "column 'a' holds date32[day]; accepted in features are numbers"),
        ("a,y\n", Names(), "a.csv: no rows; accepted is at least one"),
        ("y\n1\n", Names(), "a.csv: no column is left for features; accepted is at least one"),
    ],
)
def test_tables_without_features(content, names, told, tmp_path):
    assert told in refusal(lambda: shard_of(text(tmp_path / "a.csv", content), names))


def test_a_table_without_labels(tmp_path):
    shard = shard_of(text(tmp_path / "a.csv", "a,b,label\n1,2,3\n"), Names())
    told = "no column 'y'; it has a, b, label; accepted is data.y=<one of them> or data.train_labels=<file>"
    assert told in refusal(shard.labels)


# --- Labels in files of their own -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("1\n-2\n+3\n", [1, -2, 3]),
        ("1\n2", [1, 2]),
        ("1.5\n2\n", [1.5, 2.0]),
        ("a b\r\n ü \r\n", ["a b", "ü"]),
        ("\ufeff1\n2\n", [1, 2]),
        ("1\nx\n", ["1", "x"]),
        ("", []),
    ],
)
def test_lines(content, found, tmp_path):
    assert vector_of(text(tmp_path / "a.txt", content), None, "y").tolist() == found


def test_lines_that_are_none(tmp_path):
    told = "a.txt: line 2 is empty; accepted is one label in each line"
    assert told in refusal(lambda: vector_of(text(tmp_path / "a.txt", "a\n\nb\n"), None, "y"))
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    assert "b.txt: damaged, or no .txt file" in refusal(lambda: vector_of(File(tmp_path / "b.txt"), None, "y"))


def test_labels_in_every_format(tmp_path):
    np.save(tmp_path / "a.npy", Y)
    save_file({"y": torch.tensor(Y)}, tmp_path / "a.safetensors")
    torch.save(torch.tensor(Y), tmp_path / "a.pt")
    files = [File(tmp_path / f"a{kind}") for kind in (".npy", ".safetensors", ".pt")]
    files += [npz(tmp_path / "a.npz", labels=Y, other=X), npz(tmp_path / "b.npz", y=Y, other=Y)]
    files += [text(tmp_path / "a.csv", "id,y\n1,3\n2,1\n3,3\n4,1\n"), text(tmp_path / "b.csv", "label\n3\n1\n3\n1\n")]
    for file in files:
        assert vector_of(file, None, "y").tolist() == [3, 1, 3, 1], file
    assert vector_of(files[5], "id", "y").tolist() == [1, 2, 3, 4]
    assert "no column 'z'; it has id, y; accepted is data.y=" in refusal(lambda: vector_of(files[5], "z", "y"))
    np.save(tmp_path / "x.npy", X)
    told = "x.npy has shape (4, 3); accepted in labels is (samples,)"
    assert told in refusal(lambda: vector_of(File(tmp_path / "x.npy"), None, "y"))
