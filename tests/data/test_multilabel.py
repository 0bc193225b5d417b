"""Several labels: a matrix, names, columns and lists give the same targets; what is none of these is told in a line."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file

from handgrad.data.multilabel import (
    check_labels,
    indicated,
    label_names,
    one_form,
    plain_label_sets,
    rarest_label,
    rows_of_names,
)
from handgrad.errors import InputError
from tests.data.feature_samples import data_of

WORDS = ["ant", "bee", "cat"]
GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(60, 4))
Y = (GENERATOR.random((60, 3)) < (0.5, 0.3, 0.1)).astype(np.int64)
Y[:2] = [[0, 0, 1], [0, 0, 0]]
SETS = [[word for word, has in zip(WORDS, row, strict=True) if has] for row in Y]
COLUMNS = {f"x{i}": X[:, i] for i in range(4)}


def ready(**given):
    data = data_of(multilabel=True, **given)
    data.setup()
    return data


def archive(path, **arrays):
    np.savez(path / "a.npz", **{"x": X, "y": Y} | arrays)
    return {"train": path / "a.npz"}


def npy(path, y):
    np.save(path / "x.npy", X)
    np.save(path / "y.npy", y)
    return {"train": path / "x.npy", "train_labels": path / "y.npy"}


def lines(path):
    np.save(path / "x.npy", X)
    (path / "y.txt").write_text("\n".join(map(";".join, SETS)) + "\n")
    return {"train": path / "x.npy", "train_labels": path / "y.txt"}


def table(path, kind, **columns):
    file = path / f"a{kind}"
    write = pyarrow.csv.write_csv if kind == ".csv" else pyarrow.parquet.write_table
    write(pa.table(COLUMNS | columns), file)
    return {"train": file}


def pt(path, y):
    torch.save({"x": torch.tensor(X), "y": y}, path / "a.pt")
    return {"train": path / "a.pt"}


def safetensors(path, y):
    save_file({"x": torch.tensor(X), "y": y}, path / "a.safetensors")
    return {"train": path / "a.safetensors"}


OF_COLUMNS = dict(zip(WORDS, Y.T, strict=True))
TEXT = [";".join(row) for row in SETS]
GIVEN = {  # what is written, and whether it tells the labels' names
    "npz": (archive, False),
    "npz of truths": (lambda path: archive(path, y=Y.astype(bool)), False),
    "npz of text": (lambda path: archive(path, y=np.array(TEXT)), True),
    "npy of floats": (lambda path: npy(path, Y.astype(np.float32)), False),
    "npy of text": (lambda path: npy(path, np.array(TEXT)), True),
    "safetensors": (lambda path: safetensors(path, torch.tensor(Y, dtype=torch.uint8)), False),
    "pt": (lambda path: pt(path, torch.tensor(Y)), False),
    "pt of lists of names": (lambda path: pt(path, SETS), True),
    "txt": (lines, True),
    "csv columns": (lambda path: table(path, ".csv", **OF_COLUMNS) | {"y": WORDS}, True),
    "parquet columns": (lambda path: table(path, ".parquet", **OF_COLUMNS) | {"y": WORDS}, True),
    "csv text": (lambda path: table(path, ".csv", y=TEXT), True),
    "parquet text": (lambda path: table(path, ".parquet", y=[text or None for text in TEXT]), True),
    "parquet lists of names": (lambda path: table(path, ".parquet", y=SETS), True),
    "parquet lists of numbers": (lambda path: table(path, ".parquet", y=Y.tolist()), False),
}


@pytest.mark.parametrize("name", GIVEN)
def test_each_form_gives_the_same(name, tmp_path):
    write, named = GIVEN[name]
    data = ready(**write(tmp_path))
    assert data.classes == (WORDS if named else [0, 1, 2])
    assert data.num_features == 4
    for part in ("train", "val"):
        input, target = getattr(data, part)
        assert target.dtype == torch.int64
        assert np.array_equal(target.numpy(), Y[data._index[part]])
        assert np.array_equal(input.numpy(), X[data._index[part]])


def test_names_may_be_given_in_another_order(tmp_path):
    data = ready(**lines(tmp_path), label_names=["cat", "ant", "bee"])
    assert data.classes == ["cat", "ant", "bee"]
    assert np.array_equal(data.train[1].numpy(), Y[data._index["train"]][:, [2, 0, 1]])
    assert ready(**archive(tmp_path), label_names=WORDS).classes == WORDS


def test_another_separator(tmp_path):
    data = ready(**archive(tmp_path, y=np.array([" | ".join(row) for row in SETS])), label_separator="|")
    assert data.classes == WORDS


def test_a_set_of_its_own_and_weights(tmp_path):
    weight = np.arange(60.0)
    given = archive(tmp_path, s=weight)
    np.savez(tmp_path / "v.npz", x=X[:7], y=Y[:7])
    data = ready(**given, val=tmp_path / "v.npz", sample_weight="s")
    assert torch.equal(data.val[1], torch.tensor(Y[:7]))
    assert data.sample_weight.tolist() == weight.tolist()


def test_the_holdout_has_its_share_of_each_rarest_label(tmp_path):
    data, again = (ready(**archive(tmp_path), holdout=0.25, seed=3) for _ in range(2))
    groups = rarest_label(torch.tensor(Y))
    held = data._index["val"]
    assert torch.equal(held, again._index["val"])
    assert groups[held].bincount().tolist() == [max(int(0.25 * n + 0.5), 1) for n in groups.bincount().tolist()]
    assert data.train[1].any(0).all()


def test_the_rarest_label():
    target = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 1, 0]])
    assert rarest_label(target).tolist() == [1, 0, 3, 2, 1]


REFUSED = {
    "two": (lambda p: archive(p, y=2 * Y), "label 2 of row 0 is 2; accepted are 0 and 1"),
    "nan": (lambda p: archive(p, y=np.where(Y == 1, np.nan, 0)), "label 2 of row 0 is nan; accepted are 0 and 1"),
    "classes": (lambda p: archive(p, y=Y[:, 0]), r"labels of type int64 and shape \(60,\); accepted with task=multi"),
    "one label": (lambda p: archive(p, y=Y[:, :1]), "1 label; accepted with task=multilabel are two or more"),
    "one name": (lambda p: archive(p, y=np.array(["ant", ""] * 30)), "1 label; accepted with task=multilabel are two"),
    "three axes": (lambda p: archive(p, y=Y[:, :, None]), r"y has shape \(60, 3, 1\); accepted in labels is"),
    "never": (lambda p: archive(p, y=Y * [1, 1, 0]), r"label 2: no sample of the training set has it; accepted"),
    "always": (lambda p: archive(p, y=Y | [0, 1, 0]), r"label 1: every sample of the training set has it; accepted"),
    "too few rows": (lambda p: archive(p, y=Y[:9]), "9 labels, and 60 rows of features in"),
    "names of others": (lambda p: archive(p) | {"label_names": ["a", "b"]}, "label_names: 2 names; accepted are 3"),
    "names twice": (lambda p: archive(p) | {"label_names": ["a", "b", "a"]}, "accepted are different names"),
    "a name that is unknown": (
        lambda p: lines(p) | {"label_names": ["ant", "bee", "cats"]},
        r"unknown labels 'cat'; accepted are 'ant', 'bee', 'cats'; did you mean 'cats'\?",
    ),
    "class_weight": (
        lambda p: archive(p) | {"class_weight": "balanced"},
        "class_weight='balanced': accepted with task=multilabel is null",
    ),
    "columns of an archive": (lambda p: archive(p) | {"y": ["a", "b"]}, r"y=\['a', 'b'\]: accepted is one name; lists"),
    "a column that is missing": (
        lambda p: table(p, ".csv", **OF_COLUMNS) | {"y": ["ant", "bees"]},
        r"no column 'bees'; it has .*; did you mean 'bee'\?",
    ),
    "lists of other lengths": (
        lambda p: table(p, ".parquet", y=[[0, 1]] * 59 + [[1]]),
        "row 59 has 1 numbers; accepted is 2, as in row 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    given, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as caught:
        ready(**given(tmp_path))
    assert "\n" not in str(caught.value)


def test_with_one_label_per_sample_it_is_refused(tmp_path):
    for more, message in (
        (
            {},
            r"y has shape \(60, 3\); accepted in labels is \(samples,\), and \(samples, labels\) with task=multilabel",
        ),
        ({"y": ["a", "b"]}, "accepted with one label per sample is one name; task=multilabel has several"),
        ({"label_names": WORDS}, "accepted with one label per sample is null"),
    ):
        with pytest.raises(InputError, match=message):
            data_of(**archive(tmp_path), **more)


def test_a_label_that_weighs_nothing_is_refused():
    target, weight = torch.tensor([[1, 0], [0, 1], [0, 0]]), torch.tensor([0.0, 1.0, 2.0]).double()
    check_labels(None, target, WORDS[:2])
    with pytest.raises(InputError, match=r"label 'ant': no sample that weighs anything of the training set has it"):
        check_labels(weight, target, WORDS[:2])


def test_shards_are_of_one_form():
    names, matrix = rows_of_names([["ant"], []]), Y[:3]
    assert one_form([matrix, matrix], ["a", "b"]).shape == (6, 3)
    assert one_form([names, names], ["a", "b"]).tolist() == [("ant",), ()] * 2
    with pytest.raises(InputError, match="b: labels are names; accepted are a matrix of 3 labels, as in a"):
        one_form([matrix, names], ["a", "b"])
    with pytest.raises(InputError, match="b: labels are a matrix of 2 labels; accepted are a matrix of 3 labels"):
        one_form([matrix, matrix[:, :2]], ["a", "b"])


def test_another_set_has_the_labels_of_the_training_set():
    sets = plain_label_sets(np.array(["ant;cat", "", "dog"]), "a", ";")
    with pytest.raises(InputError, match="v: unknown labels 'dog'; accepted are 'ant', 'bee', 'cat'"):
        indicated(sets, WORDS, "v")
    assert indicated(sets[:2], WORDS, "v").tolist() == [[1, 0, 1], [0, 0, 0]]
    with pytest.raises(InputError, match="v: 3 labels; accepted are 2, as in the training set"):
        indicated(Y, WORDS[:2], "v")
    assert label_names(sets, None, "a") == ["ant", "cat", "dog"]
