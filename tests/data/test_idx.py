"""A folder of IDX files as data: which files, which samples, as which classes; and what is refused."""

import hashlib
import json

import numpy as np
import pytest

from handgrad.data.idx import IDXDataModule
from handgrad.errors import InputError
from tests.conftest import results
from tests.data.idx_samples import images_and_labels, write, write_sums

TRAIN, TEST = images_and_labels(200, 5), images_and_labels(50, 5, seed=1)
DEFAULTS = dict(holdout=0.1, shuffle=True, batch_size=20, seed=0, epochs=2)


def data_of(folder, **changes) -> IDXDataModule:
    return IDXDataModule(folder=folder, **DEFAULTS | changes)


def ready(folder, **changes) -> IDXDataModule:
    data = data_of(folder, **changes)
    data.setup()
    return data


def features(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(127.5) - np.float32(1)


def rows(*sets) -> list[list[float]]:
    """Returns the samples of all sets, each with its label behind it, in an order that does not depend on theirs."""
    return sorted(row for part in sets for row in np.column_stack(part).tolist())


HOW = {
    "packed": {},
    "unpacked": {"packed": False},
    "EMNIST's names": {"prefix": "emnist-letters-", "names": {"train": "train", "test": "test"}},
}


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_every_sample_is_read_and_a_tenth_of_each_class_is_held_out(how, tmp_path):
    write(tmp_path, train=TRAIN, test=TEST, **how)
    data = data_of(tmp_path)
    assert (data.classes, data.num_classes, data.num_features) == ([0, 1, 2, 3, 4], 5, 36)  # before images are read
    data.setup()
    assert np.array_equal(data.test[0].numpy(), features(TEST[0]))
    assert np.array_equal(data.test[1].numpy(), TEST[1])
    assert data.val[1].bincount().tolist() == [4] * 5
    assert data.train[1].bincount().tolist() == [36] * 5
    assert rows(data.train, data.val) == rows((features(TRAIN[0]), TRAIN[1]))


def test_chosen_labels_are_classes_in_their_order_and_others_are_left_out(tmp_path):
    write(tmp_path, train=TRAIN, test=TEST)
    data = ready(tmp_path, labels=[4, 1])
    assert data.classes == [4, 1]
    assert np.array_equal(data.test[0].numpy(), features(TEST[0][(TEST[1] == 4) | (TEST[1] == 1)]))
    assert np.array(data.classes)[data.test[1]].tolist() == [1, 4] * 10
    assert (data.val[1].tolist().count(0), len(data.val[1]), len(data.train[1])) == (4, 8, 72)


def test_without_a_test_set_there_is_none(tmp_path):
    write(tmp_path, train=TRAIN)
    data = ready(tmp_path, holdout=0.25, train_size=60)
    assert (data.test, len(data.val[1]), len(data.train[1])) == (None, 50, 60)


def test_what_is_packed_is_read_where_both_are_there_as_torchvision_leaves_them(tmp_path):
    sums = write(tmp_path, train=TRAIN)
    write(tmp_path, packed=False, train=TEST)
    (tmp_path / "README").touch()
    data = data_of(tmp_path)
    assert [file.path.name for file in data.files["train"]] == list(sums)


def test_the_files_are_verified_by_the_sums_that_are_given(tmp_path):
    sums = write(tmp_path, train=TRAIN, test=TEST)
    given = write_sums(tmp_path / "MD5SUMS", sums)
    data = ready(tmp_path, md5=given)
    images, labels = data.files["train"]
    told = {str(file): hashlib.sha256(file.path.read_bytes()).hexdigest() for file in (images, labels)}
    assert data.digests() == told
    assert data.about()[f"file {images}"] == f"{images.size} bytes, SHA-256 {told[str(images)]}"
    with pytest.raises(InputError, match=r"MD5SUMS: no MD5 of t10k-labels-idx1-ubyte\.gz; accepted"):
        data_of(tmp_path, md5=write_sums(given, dict(list(sums.items())[:3])))
    name = "t10k-images-idx3-ubyte.gz"
    with pytest.raises(InputError, match=f"{name}: damaged, or another file: found MD5 {sums[name]}, expected 00"):
        data_of(tmp_path, md5=write_sums(given, sums | {name: "0" * 32}))
    with pytest.raises(InputError, match="nowhere: no such file"):
        data_of(tmp_path, md5=tmp_path / "nowhere")


def test_files_that_are_missing_or_ambiguous_are_told(tmp_path):
    like = r"accepted are files called like train-images-idx3-ubyte\.gz and train-labels"
    with pytest.raises(InputError, match=rf"^{tmp_path}: no images of a train set; {like}"):
        data_of(tmp_path)
    write(tmp_path, train=TRAIN, test=TEST)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match=f"no labels of a test set; {like}"):
        data_of(tmp_path)
    write(tmp_path, prefix="emnist-", train=TRAIN)
    with pytest.raises(
        InputError, match=r": emnist-train-images-\S+ and train-images-\S+; accepted is one file of images"
    ):
        data_of(tmp_path)


REFUSED = [
    ({"folder": None}, "data.folder=null: accepted is a folder of IDX files, like data.folder=data/KMNIST/raw"),
    ({"folder": "/nowhere"}, "data.folder=/nowhere: accepted is a folder of IDX files .No such file or directory."),
    ({"holdout": 1.0}, "data.holdout=1.0: accepted is a number > 0 and < 1"),
    ({"labels": [3]}, r"data.labels=\[3\]: accepted are two or more different ones of 0, 1, 2, 3, 4"),
    ({"labels": [3, 3]}, r"data.labels=\[3, 3\]"),
    ({"labels": [3, 7]}, r"data.labels=\[3, 7\]"),
    ({"labels": [True, 3]}, r"data.labels=\[True, 3\]"),
    ({"labels": 3}, "data.labels=3"),
    ({"batch_size": 181}, "batch_size=181: accepted are 1 to 180"),
]


@pytest.mark.parametrize(("change", "line"), REFUSED)
def test_other_arguments_are_refused_in_one_line(change, line, tmp_path):
    write(tmp_path, train=TRAIN)
    with pytest.raises(InputError, match=f"^{line}") as error:
        ready(**{"folder": tmp_path} | change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"train": (TRAIN[0], TRAIN[1][:-1])},
            r"train-labels-\S+: shape \(199,\); accepted is \(200,\), as .* has images",
        ),
        ({"train": (TRAIN[0], TRAIN[0])}, r"train-labels-\S+: shape \(200, 6, 6\); accepted is \(200,\)"),
        ({"train": (TRAIN[0], TRAIN[1] * 0)}, "all labels are 0; accepted are two classes or more"),
        ({"test": (TEST[0][:, 1:], TEST[1])}, r"t10k-images-\S+: 30 pixels an image; accepted are 36, as in training"),
        ({"test": (TEST[0], TEST[1] + 1)}, r"t10k-labels-\S+: labels that the training set does not have: 5"),
    ],
)
def test_sets_that_do_not_fit_together_are_refused(changes, line, tmp_path):
    write(tmp_path, **{"train": TRAIN, "test": TEST} | changes)
    with pytest.raises(InputError, match=line) as error:
        data_of(tmp_path)
    assert "\n" not in str(error.value)


def test_the_command_line_trains_on_a_folder_and_says_what_it_was_trained_on(command, tmp_path):
    """As `python train.py data=idx` does; a run is told apart from one on another folder, not by what verifies it."""
    sums = write(tmp_path / "letters", train=TRAIN, test=TEST)
    write_sums(tmp_path / "sums", sums)
    words = ["data=idx", "data.folder=letters", "batch_size=20", "epochs=2", "lr=0.1", "data.holdout=0.2"]
    words += ["callbacks.figures=null", "threads=1"]
    ended = command(*words, "data.md5=sums", "hydra.run.dir=outputs/run")
    assert ended.code == 0, ended.err
    (row,) = results(tmp_path / "outputs/run")
    assert (row["data"], row["data.folder"], row["classes"]) == ("idx", "letters", "0 1 2 3 4")
    assert "data.md5" not in row
    assert row["test_accuracy"] > 0.9
    about = json.loads((tmp_path / "outputs/run/model.json").read_text())
    assert list(about["files"]) == ["letters/train-images-idx3-ubyte.gz", "letters/train-labels-idx1-ubyte.gz"]
    ended = command("data=idx", "hydra.run.dir=outputs/other")
    assert (ended.code, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith("error: data.folder=null: accepted is a folder of IDX files")
    assert not (tmp_path / "outputs/other/results.csv").exists()
