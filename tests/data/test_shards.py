"""Shards are one matrix: they must be alike, and have a label for each row."""

import numpy as np
import pytest

from handgrad.data.feature_files import Names
from handgrad.data.shards import Shards, is_file
from handgrad.errors import InputError

X = np.arange(30.0).reshape(10, 3)
Y = np.arange(10) % 2


@pytest.fixture
def files(tmp_path):
    """Writes arrays to .npy files; returns their paths."""

    def files(**arrays: np.ndarray) -> list[str]:
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}.npy", array)
        return [str(tmp_path / f"{name}.npy") for name in arrays]

    return files


def refusal(*arguments) -> str:
    with pytest.raises(InputError) as error:
        _ = Shards("train", *arguments, Names(labels="train_labels")).labels
    return str(error.value)


def test_labels_in_as_many_files_or_in_one(files):
    features = files(a=X, b=X[:4])
    for labels in (files(la=Y, lb=Y[:4]), files(l=np.concatenate((Y, Y[:4])))):
        shards = Shards("train", features, labels, Names())
        assert (shards.rows, [str(file) for file in shards.files]) == (14, features)
        assert shards.labels.tolist() == [*Y, *Y[:4]]
        assert [str(file) for file in shards.files] == features + labels
        assert [len(tensor) for tensor in shards.read()] == [10, 4]


def test_numbers_of_labels_that_differ(files):
    a, b = files(a=X, b=X[:4])
    la, lb, lc = files(la=Y, lb=Y[:4], lc=Y[:9])
    assert refusal(a, lb) == f"{lb}: 4 labels, and 10 rows of features in {a}; accepted are equal numbers"
    assert refusal([a, b], [lb, la]) == f"{lb}: 4 labels, and 10 rows of features in {a}; accepted are equal numbers"
    assert refusal([a, b], lc) == f"{lc}: 9 labels, and 14 rows of features; accepted are equal numbers"


def test_shards_that_differ(files):
    a, b, c, labels = files(a=X, b=X[:, :2], c=X.astype(np.float16), l=Y)
    assert refusal([a, b], [labels] * 2) == f"{b}: 2 features; accepted are 3, as in {a}"
    assert refusal([a, c], [labels] * 2) == f"{c}: numbers of type float16; accepted is float64, as in {a}"
    (text,) = files(text=np.array(list("abababcdef")))
    assert refusal([a, a], [labels, text]) == f"{text}: labels are text; accepted are integers, as in {labels}"


def test_weights_in_a_file(files):
    a, labels, weight, short = files(a=X, l=Y, w=Y + 1, s=Y[:3] + 1)
    shards = Shards("train", a, labels, Names())
    assert shards.labels.tolist() == Y.tolist()
    assert shards.weights(weight).tolist() == (Y + 1.0).tolist()
    assert str(shards.files[-1]) == weight
    with pytest.raises(InputError, match="3 sample weights, and 10 rows of features"):
        shards.weights(short)


def test_what_is_a_file_by_its_ending():
    assert all(is_file(word) for word in ("w.npy", "a/b.TXT", "*.csv"))
    assert not any(is_file(word) for word in ("w", "w.", "weight_2.5", "npy"))
