"""Features from files: the same sets whatever the format, and what is done to them; real data are scikit-learn's."""

import hashlib
import os

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils.class_weight import compute_class_weight

from handgrad.data import features
from handgrad.data.rows import Rows
from handgrad.errors import InputError
from tests.conftest import results
from tests.data.feature_samples import FEATURES, LABELS, NAMES, WINE, WRITERS, data_of


@pytest.fixture(params=[0, 2**29], ids=["on disk", "in memory"])
def place(request, monkeypatch) -> type:
    """Where large sets are kept: each test runs with both."""
    monkeypatch.setattr(features, "IN_MEMORY", request.param)
    return torch.Tensor if request.param else Rows


@pytest.fixture
def wine(tmp_path):
    """Writes wine's samples as an archive, with other arrays beside them."""

    def wine(name: str = "wine", **arrays):
        np.savez(tmp_path / f"{name}.npz", **{"x": FEATURES, "y": LABELS} | arrays)
        return tmp_path / f"{name}.npz"

    return wine


def ready(**given):
    data = data_of(**given)
    data.setup()
    return data


@pytest.mark.parametrize("kind", WRITERS)
def test_each_format_gives_the_same(kind, place, tmp_path):
    given = WRITERS[kind](tmp_path / "wine", FEATURES, LABELS)
    data = data_of(**given)
    assert (data.classes, data.num_features) == ([0, 1, 2], 13)  # before anything is read
    assert data.feature_names == (tuple(WINE.feature_names) if kind in (".parquet", ".csv") else None)
    data.setup()
    whole = FEATURES[data._index["train"]]
    for name, expected in (("train", whole), ("val", FEATURES[data._index["val"]])):
        input, target = getattr(data, name)
        assert isinstance(input, place)
        assert input.dtype == torch.float64
        assert np.array_equal(input[:].numpy(), expected)
        assert np.array_equal(target.numpy(), LABELS[data._index[name]])
        assert target.dtype == torch.int64
    assert data.test is None
    assert (data.sample_weight, data.normalization, data.scaling) == (None, None, None)


@pytest.mark.parametrize("kind", [".npy", ".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "int64"])
def test_numbers_are_cast_where_they_are_used(kind, dtype, place, tmp_path):
    digits = load_digits()
    stored = digits.data.astype(dtype)
    data = ready(**WRITERS[kind](tmp_path / "digits", stored, digits.target))
    assert data.train[0].dtype == (torch.float64 if dtype == "int64" else torch.float32)
    assert np.array_equal(data.train[0][:].numpy(), digits.data[data._index["train"]])


def test_sets_of_ones_own(wine):
    data = ready(
        train=wine(), val=wine("v", x=FEATURES[:50], y=LABELS[:50]), test=wine("t", x=FEATURES[9:12], y=LABELS[9:12])
    )
    assert [len(part[1]) for part in (data.train, data.val, data.test)] == [178, 50, 3]
    assert torch.equal(data.test[0], torch.tensor(FEATURES[9:12]))
    assert data.about()["holdout"] is None


def test_shards_are_one_matrix(place, tmp_path):
    for number, rows in enumerate((slice(0, 50), slice(50, 51), slice(51, None))):
        np.save(tmp_path / f"x{number}.npy", FEATURES[rows])
        np.save(tmp_path / f"y{number}.npy", LABELS[rows])
    val = dict(val=tmp_path / "x0.npy", val_labels=tmp_path / "y0.npy")
    data = ready(train=f"{tmp_path}/x*.npy", train_labels=f"{tmp_path}/y*.npy", **val)
    assert np.array_equal(data.train[0][:].numpy(), FEATURES)
    assert np.array_equal(data.train[1].numpy(), LABELS)
    listed = OmegaConf.create([f"{tmp_path}/x{n}.npy" for n in (0, 1, 2)])  # as the command line gives it
    np.save(tmp_path / "labels.npy", NAMES)
    data = ready(train=listed, train_labels=tmp_path / "labels.npy")
    assert data.classes == ["barbera", "barolo", "grignolino"]
    assert np.array_equal(np.array(data.classes)[data.train[1]], NAMES[data._index["train"]])


# --- Hold-out ---------------------------------------------------------------------------------------------------------


def test_the_holdout_has_its_share_of_each_class_and_follows_from_the_seed(wine):
    data, again, other = (ready(train=wine(), holdout=0.25, seed=seed) for seed in (3, 3, 4))
    train, val = data._index["train"], data._index["val"]
    assert sorted([*train.tolist(), *val.tolist()]) == list(range(178))
    assert train.tolist() == sorted(train.tolist())
    assert val.tolist() == sorted(val.tolist())
    assert data.val[1].bincount().tolist() == [15, 18, 12]  # of 59, 71 and 48
    assert torch.equal(val, again._index["val"])
    assert not torch.equal(val, other._index["val"])
    assert data.about()["holdout"] == 0.25


def test_train_size_takes_the_first_of_what_is_left(wine, place):
    order = np.random.default_rng(0).permutation(178)
    data = ready(train=wine(x=FEATURES[order], y=LABELS[order]), train_size=40, normalize="center", batch_size=40)
    assert data.train[0].shape == (40, 13)
    whole = FEATURES[order][data._index["train"]]
    assert np.allclose(data.normalization[0], whole.mean(0), rtol=1e-14)  # of those that train alone
    assert len(data._index["train"]) == 40
    with pytest.raises(InputError, match="train_size=200: accepted are 1 to 160, or null for all"):
        ready(train=wine(), train_size=200)


# --- Normalization ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardize_is_that_of_scikit_learn_fitted_on_the_training_set(dtype, wine, place):
    x = np.concatenate((FEATURES, np.full((178, 1), 0.1), 1e5 + FEATURES[:, :1]), 1).astype(dtype)
    data = ready(train=wine(x=x), normalize="standardize")
    train = x[data._index["train"]].astype(np.float64)
    scaler = StandardScaler().fit(np.delete(train, 13, 1))
    for name in ("train", "val"):
        found = np.delete(getattr(data, name)[0][:].double().numpy(), 13, 1)
        expected = scaler.transform(np.delete(x[data._index[name]].astype(np.float64), 13, 1))
        assert np.abs(found - expected).max() < (1e-10 if dtype == np.float64 else 0.02)  # 1e5 in float32: 0.008 apart
        assert not getattr(data, name)[0][:][:, 13].any()  # a constant column
    shift, scale = data.normalization
    assert (shift.dtype, scale.dtype, float(scale[13])) == (torch.float64, torch.float64, 1.0)
    again = (torch.tensor(x[data._index["val"]]).double() - shift) / scale
    assert torch.allclose(data.val[0][:].double(), again, rtol=1e-6, atol=1e-6)  # what weights are folded by
    assert data.scaling == "(x - mean) / standard deviation over the training set"


def test_center_subtracts_the_mean_alone(wine, place):
    data = ready(train=wine(), normalize="center")
    shift, scale = data.normalization
    assert torch.equal(scale, torch.ones(13, dtype=torch.float64))
    assert np.allclose(data.val[0][:].numpy(), FEATURES[data._index["val"]] - shift.numpy(), rtol=1e-14)
    assert data.train[0][:].mean(0).abs().max() < 1e-10


def test_l2_gives_each_row_length_one_and_leaves_zeros(wine, place):
    x = FEATURES.copy()
    x[[0, 60, 177]] = 0
    data = ready(train=wine(x=x), val=wine("v", x=x), normalize="l2")
    assert np.allclose(data.train[0][:].numpy(), normalize(x), rtol=1e-14)
    assert data.normalization is None


@pytest.mark.parametrize("kind", ["none", "center", "standardize", "l2"])
def test_bits_do_not_depend_on_where_rows_are_kept(kind, tmp_path, monkeypatch):
    cancer = load_breast_cancer()
    given = WRITERS[".npy"](tmp_path / "cancer", cancer.data.astype(np.float16), cancer.target)
    in_memory = ready(**given, normalize=kind)
    monkeypatch.setattr(features, "IN_MEMORY", 0)
    on_disk = ready(**given, normalize=kind)
    assert isinstance(on_disk.train[0], Rows)
    assert torch.equal(on_disk.train[0][:], in_memory.train[0])
    assert torch.equal(on_disk.val[0][7:9], in_memory.val[0][7:9])


# --- Weights ----------------------------------------------------------------------------------------------------------


def test_balanced_is_that_of_scikit_learn(wine):
    data = ready(train=wine(), class_weight="balanced")
    target = data.train[1].numpy()
    expected = compute_class_weight("balanced", classes=np.arange(3), y=target)
    assert np.allclose(data.sample_weight, expected[target], rtol=1e-15)
    assert data.sample_weight.dtype == torch.float64


def test_what_the_validation_set_would_weigh_in_training(wine, tmp_path):
    weight, table = np.arange(178) % 5 + 0.5, np.array([3, 1, 0.5])
    given = {0: 3, 2: 0.5}
    data = ready(train=wine(w=weight), sample_weight="w", class_weight=given)
    assert np.array_equal(data.val_weight, weight[data._index["val"]] * table[data.val[1]])
    data = ready(train=wine(), val=wine(), class_weight=given)
    assert np.array_equal(data.val_weight, table[data.val[1]])
    np.save(tmp_path / "weight.npy", weight)
    both = ready(train=wine(), val=wine(), sample_weight=str(tmp_path / "weight.npy"))
    assert (both.sample_weight is not None, both.val_weight) == (True, None)
    assert ready(train=wine()).val_weight is None
    every = ready(train=wine())._index["train"].numpy()
    alike = np.where(np.isin(np.arange(178), every), 2.0, 6.0)  # 2 for all that train
    data = ready(train=wine(w=alike), sample_weight="w")
    assert data.sample_weight is None
    assert np.array_equal(data.val_weight, np.full(178 - len(every), 3.0))


def test_weights_of_classes_and_samples_are_multiplied(wine, tmp_path):
    weight = np.arange(178) % 5 + 0.5
    np.save(tmp_path / "weight.npy", weight)
    for given in ("w", str(tmp_path / "weight.npy")):
        data = ready(train=wine(w=weight), sample_weight=given, class_weight=OmegaConf.create({0: 3, "2": 0.5}))
        expected = weight[data._index["train"]] * np.array([3, 1, 0.5])[data.train[1]]
        assert np.array_equal(data.sample_weight, expected)
        assert data.num_features == 13
    assert ready(train=wine(w=np.full(178, 7.0)), sample_weight="w").sample_weight is None  # all alike
    assert ready(train=wine(w=np.full(178, 7.0)), sample_weight="w").val_weight is None
    cut = ready(train=wine(w=weight, y=np.arange(178) % 3), sample_weight="w", train_size=20)
    assert np.array_equal(cut.sample_weight, weight[cut._index["train"]])


# --- What a checkpoint tells ------------------------------------------------------------------------------------------


def test_about_tells_data_apart(wine):
    path = wine(w=np.arange(178.0))
    data = data_of(train=path, normalize="center", class_weight={1: 2}, sample_weight="w")
    told = data.about()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told[f"file {path}"] == f"{path.stat().st_size} bytes, SHA-256 {digest}"
    expected = {"normalize": "center", "holdout": 0.1, "class_weight": {1: 2}, "sample_weight": "w"}
    assert expected.items() <= told.items()
    assert told["scaling"] == "x - mean over the training set"
    assert (told["classes"], told["num_features"]) == ([0, 1, 2], 13)


# --- What is refused --------------------------------------------------------------------------------------------------


def refused(told: str, **given) -> None:
    with pytest.raises(InputError) as error:
        ready(**given)
    assert "\n" not in str(error.value)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"train": None}, "train=null: accepted is a file of features"),
        ({"normalize": "standard"}, "normalize='standard': accepted are none, center, standardize, l2; did you mean"),
        ({"holdout": 1}, "holdout=1: accepted is a number > 0 and < 1"),
        ({"holdout": 0.0}, "holdout=0.0"),
        ({"class_weight": "balance"}, "class_weight='balance': accepted are null, balanced, or a table"),
        ({"class_weight": {3: 1}}, "class_weight: no class 3; accepted are 0, 1, 2"),
        ({"class_weight": {1: -1}}, "class_weight: 1: -1; accepted is a number >= 0"),
        ({"class_weight": {1: 0}}, "class 1: no sample that weighs anything in the training set"),
        ({"class_weight": {0: 0, 1: 0, 2: 0}}, "all weights are 0"),
        ({"train_size": 20}, "class 1, 2: no sample in the training set"),
        ({"val_labels": "y.npy"}, "data.val_labels=y.npy: accepted with data.val=null is null"),
        ({"sample_weight": "weigth"}, "no sample weights 'weigth'; found y (178,), weight (178,)"),
        ({"batch_size": 161}, "batch_size=161: accepted are 1 to 160"),
    ],
)
def test_wrong_arguments(given, told, wine):
    refused(told, **{"train": wine(weight=np.ones(178))} | given)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", WRITERS)
def test_the_first_number_that_is_none_is_named(kind, value, place, tmp_path):
    x = FEATURES.copy()
    x[150, 2] = x[77, 5] = x[77, 3] = value
    column = f"'{WINE.feature_names[3]}'" if kind in (".parquet", ".csv") else "3"
    given = WRITERS[kind](tmp_path / "wine", x, LABELS)
    refused(f"{given['train']}: row 77, column {column}: found {value}; accepted are finite numbers", **given)


def test_it_is_named_by_its_place_in_its_shard_and_of_either_set(wine):
    x = FEATURES.copy()
    x[5, 0] = np.nan
    good, bad = wine(), wine("bad", x=x)
    refused(f"{bad}: row 5, column 0: found nan", train=[good, bad])
    refused(f"{bad}: row 5, column 0: found nan", train=good, val=bad)
    refused(f"{bad}: row 5, column 0: found nan", train=good, test=bad)
    large = ready(train=wine("large", x=FEATURES * 1e300))  # their sum is not finite, and they are
    assert len(large.train[1]) == 160


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_too_large_for_a_deviation(dtype, wine):
    largest = np.finfo(dtype).max
    x = np.where(FEATURES.mean(0) < FEATURES, largest, -largest).astype(dtype)
    refused("are too large; accepted is data.normalize=none", train=wine(x=x), normalize="standardize")
    assert ready(train=wine(x=x / dtype(1e9)), normalize="center").train[0].isfinite().all()


def test_labels_that_do_not_belong(wine):
    train = wine(y=NAMES)
    strange = wine("strange", y=np.where(LABELS == 1, "Barolo", np.where(LABELS == 0, "x", "barolo")))
    told = "labels that the training set does not have: 'Barolo', 'x'; accepted are 'barbera', 'barolo', 'grignolino'"
    refused(f"{strange}: {told}", train=train, val=strange)
    refused(f"{strange}: {told}", train=train, test=strange)
    refused("labels that the training set does not have: 0, 1, 2", train=train, test=wine("numbers"))
    refused("all labels are 'a'; accepted are two classes or more", train=wine("one", y=np.full(178, "a")))
    alone = wine("alone", x=FEATURES[:3], y=np.arange(3))
    refused("val=null: no class has two samples", train=alone, batch_size=1)


def test_sets_with_other_features(wine, tmp_path):
    narrow = wine("narrow", x=FEATURES[:, :5])
    refused(f"{narrow}: 5 features; accepted are 13, as in {wine()}", train=wine(), val=narrow)
    refused(f"{narrow}: 5 features; accepted are 13, as in {wine()}", train=wine(), test=narrow)
    refused(f"{narrow}: 5 features", train=[wine(), narrow])
    single = wine("single", x=FEATURES.astype(np.float32))
    refused(f"{single}: numbers of type float32; accepted is float64, as in {wine()}", train=[wine(), single])
    table = WRITERS[".csv"](tmp_path / "a", FEATURES, LABELS)["train"]
    other = tmp_path / "b.csv"
    other.write_text(table.read_text().replace("alcohol", "Alcohol", 1))
    refused(f"{other}: column 'Alcohol'; accepted is 'alcohol', as in {table}", train=table, test=other)


def test_a_file_that_changes_is_told(wine):
    data = data_of(train=wine())
    wine(x=FEATURES + 1)
    with pytest.raises(InputError, match="it changed while it was read"):
        data.setup()
    path = wine()
    data = data_of(train=path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="it changed while it was read"):
        data.setup()


# --- The command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ("data.train=wine.npz data.normalize=standardize data.class_weight={barolo:2,barbera:0.5}", 3),
        ("data.train=[a.npy,b.npy] data.train_labels=[la.npy,lb.npy] data.val=a.npy data.val_labels=la.npy", 3),
        ("data.train=?.npy data.train_labels=l?.npy data.test=wine.npz", 3),
        ("task=logistic data.train=two.csv data.sample_weight=weight data.y=label data.x=[ash,alcohol]", 2),
    ],
)
def test_the_command_trains(words, classes, command, tmp_path, wine):
    wine(y=NAMES)
    for name, rows in (("a", slice(None, None, 2)), ("b", slice(1, None, 2))):
        np.save(tmp_path / f"{name}.npy", FEATURES[rows].astype(np.float16))
        np.save(tmp_path / f"l{name}.npy", NAMES[rows])
    lines = [
        f"{x[0]},{x[2]},{name},{1 + place % 2}" for place, (x, name) in enumerate(zip(FEATURES, NAMES, strict=True))
    ]
    two = [line for line in lines if "barbera" not in line]
    (tmp_path / "two.csv").write_text("\n".join(["alcohol,ash,label,weight", *two]))
    ended = command("data=features", *words.split(), "epochs=2", "batch_size=16", "logger=none", "l2=[0,1]")
    assert ended.code == 0, ended.err
    (folder,) = (tmp_path / "outputs").glob("*/*")
    rows = results(folder)
    assert [row["l2"] for row in rows] == [0, 1]
    assert rows[0]["classes"] == " ".join(sorted(set(NAMES))[-classes:])
    assert rows[0]["data"] == "features"
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert best["handgrad"]["data"]["classes"] == sorted(set(NAMES))[-classes:]


def test_a_run_goes_on_with_the_same_files_only(command, tmp_path, wine):
    wine()
    words = ("data=features", "data.train=wine.npz", "data.normalize=standardize", "epochs=3", "logger=none")
    assert command(*words, "hydra.run.dir=outputs/a").code == 0
    for made in ("results.csv", "checkpoints/best.ckpt"):
        (tmp_path / "outputs/a" / made).unlink()  # as if it had been stopped before its end
    wine(x=FEATURES + 1)
    ended = command("resume=outputs/a")
    assert ended.code == 1
    assert "error: file wine.npz=" in ended.err
    assert "the run was started with file wine.npz=" in ended.err
    wine()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data=features", "train=null: accepted is a file of features, like data.train=train.npz"),
        ("data=features data.train=win.npz", "win.npz: no such file; did you mean 'wine.npz'?"),
        (
            "data=features data.train=wine.npz data.digits=[1,2]",
            "data.digits: no such key with data=features; data=mnist, data=fashion_mnist and data=kmnist have it",
        ),
        ("data.train=wine.npz", "data.train: no such key with data=mnist; data=features has it"),
        (
            "data=features data.train=wine.npz task=logistic",
            "task=logistic: 3 classes; accepted are exactly 2",
        ),
        ("data=features data.train=wine.npz data.holdout=1", "data.holdout=1: accepted is a number > 0 and < 1"),
        ("data=features data.train=wine.npz data.class_weight={a:1}", "class_weight: no class 'a'"),
    ],
)
def test_the_command_refuses_in_one_line(words, told, command, tmp_path, wine):
    wine()
    ended = command(*words.split())
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert told in ended.err
    assert ended.err.count("\n") == 1
    assert not list((tmp_path / "outputs").glob("*/*/checkpoints"))
